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
# What asks for a module by name gets it; these are asked for by what they make (loop), or by nobody (bfq).
modprobe -a virtio_console loop bfq
echo 1 >/proc/sys/net/ipv4/ip_forward
# Limits of swap mean nothing where there is none.
fallocate -l 256M /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap
mkdir -p /output
tar -C / -xf /dev/vdb
. /.vm/environment
cd "$VM_CHECKOUT" || exit
while [ ! -c /dev/vport0p3 ]; do sleep 0.1; done
if [ ! -e /.vm/command ]; then
    setsid busybox cttyhack bash -i </dev/ttyS0 >/dev/ttyS0 2>&1
else
    # While it waits this shell, as process 1, reaps orphans. Not a background job: those ignore SIGINT.
    setsid sh /.vm/command </dev/null >/dev/vport0p1 2>&1
fi
status=$?
tar -C /output -cf /dev/vport0p3 .
echo $status >/dev/vport0p2
poweroff -f
