#!/bin/sh
# The machine's init: a host with cgroup v2 alone, the checkout unpacked from /dev/vdb, one command, and off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
mkdir -p /dev/pts /dev/shm /dev/mqueue /run/lock /run/netns
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount --make-rshared /
ln -s /proc/self/fd /dev/fd
hostname sandbox-vm
ip link set lo up
modprobe -a virtio_console loop overlay veth bridge br_netfilter nf_tables nft_chain_nat nft_masq nft_ct nft_numgen bfq 2>/dev/null
echo 1 >/proc/sys/net/ipv4/ip_forward
tar -C / -xf /dev/vdb
. /.vm/environment
cd "$VM_CHECKOUT" || exit
if [ ! -e /.vm/command ]; then
    setsid busybox cttyhack bash -i </dev/ttyS0 >/dev/ttyS0 2>&1
else
    # A job that is waited for: this shell, as process 1, reaps orphans meanwhile.
    setsid sh /.vm/command </dev/null >/dev/vport0p1 2>&1 &
    wait $!
fi
echo $? >/dev/vport0p2
poweroff -f
