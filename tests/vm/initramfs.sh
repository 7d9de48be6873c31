#!/bin/busybox sh
# The first program of the machine: the disk's driver, then the disk.
bb=/bin/busybox
$bb mount -t devtmpfs none /dev
for module in /*.ko; do $bb insmod "$module"; done
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -b /dev/vda ] && break
    $bb sleep 0.1
done
$bb mount -t ext4 -o noatime,noinit_itable /dev/vda /root || exec $bb poweroff -f
$bb mount -o move /dev /root/dev
exec $bb switch_root /root /init
