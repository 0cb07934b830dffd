#!/bin/sh
# PID 1 of the outer machine until its root file system is in place: the machine that runs it, read-only by 9p,
# below a tmpfs that takes all writes. Only the results folder is written through.
export PATH=/bin
mkdir -p /proc /lower /upper /root
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    insmod "$module" || echo "lab-b: $module is not loaded"
done
for word in $(cat /proc/cmdline); do
    case $word in
    lab_b.results=*) results=${word#lab_b.results=} ;;
    esac
done
by_9p="trans=virtio,version=9p2000.L,msize=262144"
mount -t 9p -o "$by_9p,cache=loose,ro" host /lower &&
    mount -t tmpfs -o size=75% tmpfs /upper &&
    mkdir /upper/data /upper/work &&
    mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root &&
    mkdir -p "/root$results" &&
    mount -t 9p -o "$by_9p,cache=none" results "/root$results" &&
    exec switch_root /root /bin/sh "$results/.lab-b/machine.sh" "$results/.lab-b"
echo "lab-b: the root file system is not there"
echo o >/proc/sysrq-trigger
sleep 10
