# PID 1 of the outer machine: makes it a machine, runs the job, leaves the job's exit code, powers off.
# $1: the folder with the job, shared with the machine outside.
job=$1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/lock
hostname lab-b
ip link set lo up
# The kernel's modules where modprobe looks for them, also when the kernel itself asks.
version=$(uname -r)
if [ ! -e "/lib/modules/$version" ]; then
    mkdir -p /lib/modules
    ln -s "$(cat "$job/tree")" "/lib/modules/$version"
fi
while read -r module; do
    modprobe "$module" || echo "lab-b: $module is not loaded"
done <"$job/modules"
# As udev does it where there is no group for it: QEMUs run as users of their own.
[ ! -e /dev/kvm ] || chmod 0666 /dev/kvm
[ ! -e "$job/soft_roce.sh" ] || /bin/sh "$job/soft_roce.sh"

for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = output ] && break
done
# The port takes one writer: whatever the job starts writes into the pipe.
mkfifo /run/output
cat /run/output >"/dev/${port##*/}" &
reader=$!
/bin/sh "$job/job.sh" >/run/output 2>&1 </dev/null
echo $? >"$job/code.new"
mv "$job/code.new" "$job/code"
# Processes that outlive the job may hold the pipe open.
for wait in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 $reader 2>/dev/null || break
    sleep 0.1
done
sync
echo o >/proc/sysrq-trigger
sleep 60
