use std::path::Path;

use super::*;
use crate::vm::{Descriptors, OpenDisk};

const FULL: &str = r#"
name = "web-1"
machine = "pc-q35-7.2"
memory = "256MiB"
cpus = 2
serial = "unix:/run/s,1.sock"
extra_args = ["-device", "virtio-rng-pci"]

[qemu]
binary = "/opt/qemu"
firmware = ["/opt/fw", "/usr/share/seabios"]

[boot]
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd"
append = "console=ttyS0"

[[disk]]
path = "/images/a.img"
readonly = true

[[disk]]
path = "/dev/vg0/a,b"
format = "qcow2"

[[nic]]
tap = "tap0"
mac = "52:54:00:00:00:01"
"#;

fn command(spec: &VmSpec, incoming: bool) -> String {
    command_in(spec, incoming, false)
}

/// As if the agent had opened everything, the second disk a device.
fn descriptors(spec: &VmSpec) -> Descriptors {
    let disk = |(n, disk): (usize, &Disk)| OpenDisk {
        read: 20 + 2 * n as i32,
        write: (!disk.readonly).then_some(21 + 2 * n as i32),
        is_device: n == 1,
    };
    Descriptors {
        qmp: 10,
        memory: 11,
        log: 12,
        serial: (*spec.serial() != Serial::None).then_some(13),
        boot: spec.boot_files().map(|boot| (14, boot.initrd.map(|_| 15))),
        disks: spec.disks().iter().enumerate().map(disk).collect(),
        taps: spec.needs().taps.iter().map(|_| 16).collect(),
    }
}

fn command_in(spec: &VmSpec, incoming: bool, sandbox: bool) -> String {
    let descriptors = descriptors(spec);
    let launch = Launch {
        qemu: &Qemu::default(),
        descriptors: &descriptors,
        log: Path::new("/s,1/qemu.log"),
        incoming,
        sandbox,
    };
    let argv = spec.to_command(&launch);
    argv.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn full_spec_becomes_a_command_line() {
    let spec = VmSpec::parse(FULL).unwrap();
    let expected = "/opt/qemu -L /opt/fw -L /usr/share/seabios -name web-1,debug-threads=on -nodefaults \
        -no-user-config -S -display none \
        -add-fd fd=12,set=0,opaque=/s,,1/qemu.log \
        -object memory-backend-file,id=pc.ram,mem-path=/proc/self/fd/11,share=on,size=268435456,prealloc=off \
        -machine pc-q35-7.2,accel=tcg,memory-backend=pc.ram -m size=262144k -smp 2 \
        -chardev socket,id=rackferry-qmp,fd=10,server=on,wait=off -mon chardev=rackferry-qmp,mode=control \
        -chardev socket,id=serial0,fd=13,server=on,wait=off -serial chardev:serial0 \
        -kernel /proc/self/fd/14 -initrd /proc/self/fd/15 -append console=ttyS0 \
        -add-fd fd=20,set=2,opaque=/images/a.img \
        -blockdev driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename=/dev/fdset/2 \
        -device virtio-blk-pci,id=vd0,drive=disk0 \
        -add-fd fd=22,set=3,opaque=/dev/vg0/a,,b -add-fd fd=23,set=3,opaque=/dev/vg0/a,,b \
        -blockdev driver=qcow2,node-name=disk1,read-only=off,file.driver=host_device,file.filename=/dev/fdset/3 \
        -device virtio-blk-pci,id=vd1,drive=disk1 \
        -netdev tap,id=net0,fd=16 \
        -device virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:00:00:01 \
        -device virtio-rng-pci";
    assert_eq!(command(&spec, false), expected);
    assert_eq!(command(&spec, true), format!("{expected} -incoming defer"));
    let confined = "-display none -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -add-fd";
    assert!(command_in(&spec, true, true).contains(confined));
}

#[test]
fn small_spec_uses_defaults() {
    let spec = VmSpec::parse("name = 'a'\nmemory = '64MiB'").unwrap();
    let command = command(&spec, false);
    assert!(
        command.starts_with("/usr/bin/qemu-system-x86_64 -name a,debug-threads=on"),
        "{command}"
    );
    let serial = "-add-fd fd=13,set=1,opaque=serial.log -chardev file,id=serial0,path=/dev/fdset/1,append=on";
    assert!(command.contains(serial), "{command}");
    assert!(spec.attach().is_none());
}

#[test]
fn a_qemu_is_told_by_an_argument_also_one_of_an_earlier_agent() {
    let spec = VmSpec::parse("name = 'a'\nmemory = '64MiB'").unwrap();
    let command = command(&spec, false);
    let told = |log: &str, command: &str| {
        let monitor = Path::new("/s,1/qmp.sock");
        command.split(' ').filter(|part| is_of(part.as_bytes(), Path::new(log), monitor)).count()
    };
    assert_eq!((told("/s,1/qemu.log", &command), told("/s/qemu.log", &command)), (1, 0));
    assert_eq!(told("qemu.log", &command), 0);
    let earlier = "qemu -qmp unix:/s,,1/qmp.sock,server=on,wait=off -S";
    assert_eq!(told("/s,1/qemu.log", earlier), 1);
    // Another VM's disk has what name its operator likes.
    assert_eq!(told("/s,1/qemu.log", "-add-fd fd=7,set=2,opaque=/s,,1/qemu.log"), 0);
}

#[test]
fn a_dirty_ring_is_an_option_of_kvm_and_survives_pinning() {
    let text = "name = 'a'\nmemory = '64MiB'\naccel = 'kvm'\ndirty_ring = 4096";
    let spec = VmSpec::parse(text).unwrap().with_machine("pc-q35-10.0").unwrap();
    let command = command(&spec, true);
    let expected = " -machine pc-q35-10.0,memory-backend=pc.ram -accel kvm,dirty-ring-size=4096 ";
    assert!(command.contains(expected) && !command.contains("accel=kvm"), "{command}");
    assert!(spec.needs().kvm);
}

#[test]
fn machine_can_be_pinned() {
    for text in [FULL, "name = 'a'\nmemory = '64MiB'\nattach = { qmp = '/q' }"] {
        let spec = VmSpec::parse(text).unwrap();
        let pinned = spec.with_machine("pc-q35-10.0").unwrap();
        assert_eq!(pinned.machine(), "pc-q35-10.0");
        let back = pinned.with_machine(spec.machine()).unwrap();
        assert_eq!(command(&back, true), command(&spec, true));
        assert_eq!(back.attach(), spec.attach());
    }
}

#[test]
fn a_machines_options_survive_pinning_and_are_no_part_of_its_type() {
    let text = "name = 'a'\nmemory = '64MiB'\nmachine = 'q35,hpet=off,smm=off'";
    let spec = VmSpec::parse(text).unwrap();
    assert_eq!(spec.needs().machine, "q35");
    let pinned = spec.with_machine("pc-q35-10.0").unwrap();
    assert_eq!(pinned.needs().machine, "pc-q35-10.0");
    let command = command(&pinned, true);
    assert!(command.contains(" -machine pc-q35-10.0,hpet=off,smm=off,accel="), "{command}");
    let again = pinned.with_machine("pc-q35-10.0").unwrap();
    assert_eq!(again.machine(), pinned.machine());
}

#[test]
fn a_named_cpu_is_whole_under_kvm_or_not_at_all() {
    for (accel, cpu, expected) in [
        ("kvm", "Cascadelake-Server", "Cascadelake-Server,enforce"),
        ("kvm", "EPYC,-svm", "EPYC,-svm,enforce"),
        ("kvm", "EPYC,enforce=off", "EPYC,enforce=off"),
        ("kvm", "host", "host"),
        ("kvm", "max,-x2apic", "max,-x2apic"),
        ("tcg", "Cascadelake-Server", "Cascadelake-Server"),
    ] {
        let text = format!("name = 'a'\nmemory = '64MiB'\naccel = '{accel}'\ncpu = '{cpu}'");
        let command = command(&VmSpec::parse(&text).unwrap(), true);
        assert!(command.contains(&format!(" -cpu {expected} ")), "{command}");
    }
}

#[test]
fn faults_are_told_with_line_field_and_advice() {
    let cases = [
        ("name = 'Web'\nmemory = '1GiB'", 1, "name", "a-z"),
        ("name = ''\nmemory = '1GiB'", 1, "name", "1 to 63"),
        ("name = '..'\nmemory = '1GiB'", 1, "name", "dot"),
        ("name = 'a/b'\nmemory = '1GiB'", 1, "name", "a-z"),
        ("memory = '1GB'\nname = 'a'", 1, "memory", "256MiB"),
        ("name = 'a'\nmemory = '0MiB'", 2, "memory", "positive"),
        ("name = 'a'\nmemory = '99999999999TiB'", 2, "memory", "256MiB"),
        ("name = 'a'\nmemory = '3MiB'\nhugepages = '2MiB'", 2, "memory", "2 MiB"),
        ("name = 'a'\n\n\nmemory = '2MiB'\nhugepages = '4KiB'", 5, "hugepages", "1GiB"),
        ("name = 'a'\nmemory = '2MiB'\nserial = 'tcp:1'", 3, "serial", "file:PATH"),
        ("name = 'a'\nmemory = '2MiB'\ncpus = 0", 3, "cpus", "1024"),
        ("name = 'a'\nmemory = '2MiB'\ndirty_ring = 4096", 3, "dirty_ring", "accel"),
        ("name = 'a'\nmemory = '2MiB'\naccel = 'kvm'\ndirty_ring = 3000", 4, "dirty_ring", "1024"),
        ("name = 'a'\nmemory = '2MiB'\naccel = 'kvm'\ndirty_ring = 512", 4, "dirty_ring", "1024"),
        ("name = 'a'\nmemory = '2MiB'\nextra_args = ['-m', '1G']", 3, "extra_args", "-m is set"),
        ("name = 'a'\nmemory = '2MiB'\nextra_args = ['--incoming', 'x']", 3, "extra_args", "set"),
    ];
    for (text, line, field, hint) in cases {
        match VmSpec::parse(text).unwrap_err() {
            SpecError::Field { line: l, field: f, advice, .. } => {
                assert_eq!((l, f), (line, field), "{text}");
                assert!(advice.contains(hint), "{text}: {advice}");
            }
            other => panic!("{text}: {other}"),
        }
    }
    let unknown = VmSpec::parse("name = 'a'\nmemory = '2MiB'\nmemroy = 1").unwrap_err();
    assert!(unknown.to_string().contains("memroy"), "{unknown}");
    assert!(unknown.to_string().contains("line 3"), "{unknown}");
    assert!(matches!(VmSpec::parse(&"#".repeat(70_000)), Err(SpecError::TooLong { .. })));
}
