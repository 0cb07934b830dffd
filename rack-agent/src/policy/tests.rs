use std::os::unix::fs::symlink;
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::options::given;
use super::values::split;
use super::*;

fn policy(extra_args: &[&str]) -> Policy {
    let list: Vec<String> = extra_args.iter().map(|kind| format!("{kind:?}")).collect();
    Policy::parse(&format!("extra_args = [{}]", list.join(", "))).unwrap()
}

fn spec(more: &str) -> VmSpec {
    VmSpec::parse(&format!("name = 'a'\nmemory = '64MiB'\n{more}")).unwrap()
}

/// The judge's word, with the paths of this machine.
fn breaches(policy: &Policy, spec: &VmSpec, own: &Qemu) -> Vec<Breach> {
    Judge { policy, real: &paths::real }.breaches(spec, own)
}

/// What the policy says of further arguments.
fn said(policy: &Policy, args: &[&str]) -> Vec<Breach> {
    let claims = args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let judge = Judge { policy, real: &paths::real };
    match given(&claims) {
        Ok(given) => given.iter().filter_map(|one| judge.option(one.name, one.value)).collect(),
        Err(breach) => vec![breach],
    }
}

#[test]
fn the_defaults_take_a_plain_vm_and_nothing_of_the_hosts_own() {
    let (policy, own) = (Policy::default(), Qemu::default());
    let good =
        "serial = 'file:x.log'\n[boot]\nkernel = '/srv/k'\n[[disk]]\npath = '/mnt/nfs/a.img'";
    assert_eq!(breaches(&policy, &spec(good), &own), []);
    for (bad, what) in [
        ("[[disk]]\npath = '/etc/shadow'", "disk.path"),
        ("[[disk]]\npath = '/dev/sda'", "disk.path"),
        ("[[disk]]\npath = '/srv/../etc/shadow'", "disk.path"),
        ("[[disk]]\npath = 'etc/shadow'", "disk.path"),
        ("[[disk]]\npath = '/srv2/a'", "disk.path"),
        ("[boot]\nkernel = '/boot/vmlinuz'", "boot.kernel"),
        ("[boot]\nkernel = '/srv/k'\ninitrd = '/srv/i,/etc/shadow'", "boot.initrd"),
        ("serial = 'file:/etc/cron.d/x'", "serial"),
        ("serial = 'unix:../other/qmp.sock'", "serial"),
        ("machine = 'q35,dumpdtb=/etc/cron.d/x'", "machine"),
        ("machine = 'q35,,x,firmware=../../x'", "machine"),
        ("accel = 'tcg,kernel=/etc/shadow'", "accel"),
        ("cpu = 'max,x=/etc/shadow'", "cpu"),
        ("[qemu]\nbinary = '/usr/bin/qemu-system-x86_64'\nfirmware = ['/root']", "qemu.firmware"),
    ] {
        let breaches = breaches(&policy, &spec(bad), &own);
        assert!(
            matches!(&breaches[..], [Breach::Path { what: found, .. }] if *found == what),
            "{bad}: {breaches:?}"
        );
        assert!(breaches[0].fix().contains("extend paths in policy.toml"), "{}", breaches[0].fix());
    }
}

#[test]
fn programs_are_those_of_the_list_and_the_agents_own() {
    let own = Qemu { binary: "/opt/own/qemu".into(), firmware: vec!["/opt/own/fw".into()] };
    let named =
        |binary: &str| spec(&format!("[qemu]\nbinary = '{binary}'\nfirmware = ['/opt/own/fw']"));
    let policy = Policy::parse("binaries = ['/opt/qemu']").unwrap();
    for good in ["/opt/qemu", "/opt/own/qemu"] {
        assert_eq!(breaches(&policy, &named(good), &own), []);
    }
    for bad in ["/bin/sh", "/opt/../bin/sh", "/opt/own", "qemu", "/srv/qemu"] {
        let breach = Breach::Binary { binary: bad.into() };
        assert_eq!(breaches(&policy, &named(bad), &own), [breach]);
    }
}

#[test]
fn further_arguments_are_none_unless_listed() {
    let none = policy(&[]);
    for args in [&["-device", "virtio-rng-pci"][..], &["-no-reboot"], &["--usb"], &["-vga", "std"]]
    {
        assert!(matches!(&said(&none, args)[..], [Breach::Kind { .. }]), "{args:?}");
    }
    let some = policy(&[
        "-device virtio-rng-pci",
        "-no-reboot",
        "-vga *",
        "-chardev socket",
        "-blockdev raw",
    ]);
    for good in [
        &["-device", "virtio-rng-pci"][..],
        &["--device", "virtio-rng-pci,id=rng0,bus=pcie.0"],
        &["-device", "id=x,driver=virtio-rng-pci"],
        &["-device", r#"{"driver":"virtio-rng-pci","id":"x"}"#],
        &["-no-reboot", "--no-reboot", "-vga", "std"],
        &["-chardev", "socket,id=a,path=/srv/a.sock,server=on"],
        &["-chardev", "socket,id=a,path=rf-serial-web,abstract=on"],
        &["-blockdev", "raw,file.driver=file,file.filename=/srv/a,,b"],
    ] {
        assert_eq!(said(&some, good), [], "{good:?}");
    }
    for bad in [
        &["-device", "virtio-rng-pci,driver=vfio-pci"][..],
        &["-device", "vfio-pci,driver=virtio-rng-pci"],
        &["-device", ",driver=virtio-rng-pci"],
        &["-device", "virtio-rng-pci,,"],
        &["-device", "virtio-rng-pci,romfile=/etc/shadow"],
        &["-device", r#"{"driver":"vfio-pci"}"#],
        &["-device", r#"{'driver':'virtio-rng-pci'}"#],
        &["-device", r#" {"driver":"virtio-rng-pci","romfile":"\u002fetc/shadow"}"#],
        &["-device", r#"{"driver":"virtio-rng-pci","a":[{"b":"/etc/shadow"}]}"#],
        &["-chardev", "socket,path=/run/docker.sock"],
        &["-chardev", "file,path=/srv/a"],
        &["-chardev", "backend=socket,path=/srv/../run/docker.sock"],
        &["-blockdev", "raw,file.driver=vvfat,file.dir=fat:rw:/etc"],
        &["-blockdev", "raw,file=json:{x"],
        &["-vga", "/etc/shadow"],
        &["-vga", "/srv/../etc/shadow"],
        &["-no-reboot", "/etc/shadow"],
        &["-vga"],
        &["disk.img"],
        &["-"],
        &["---no-reboot"],
        &["-no-reboo"],
    ] {
        let breaches = said(&some, bad);
        assert!(!breaches.is_empty(), "{bad:?}");
    }
}

#[test]
fn no_list_allows_what_undoes_the_policy() {
    let all = policy(&["-netdev *", "-device *", "-mon *"]);
    for option in options_that_never() {
        for dashes in ["-", "--"] {
            let word = format!("{dashes}{option}");
            let value: &[&str] = if options::is_flag(option) { &[] } else { &["x"] };
            let breaches = said(&all, &[&["-netdev", "user,id=a", &word], value].concat());
            assert!(breaches.contains(&Breach::Never { option: option.to_owned() }), "{word}");
        }
        let listed = Policy::parse(&format!("extra_args = ['-{option} *']"));
        assert!(format!("{:#}", listed.unwrap_err()).contains("cannot be allowed"));
    }
    for value in ["tap,script=/srv/evil", "tap,downscript=x", "bridge,helper=/srv/evil"] {
        assert!(
            matches!(&said(&all, &["-netdev", value])[..], [Breach::Program { .. }]),
            "{value}"
        );
    }
    assert_eq!(said(&all, &["-netdev", "tap,script=no,downscript=no,ifname=t"]), []);
}

fn options_that_never() -> [&'static str; 12] {
    [
        "incoming",
        "S",
        "daemonize",
        "readconfig",
        "writeconfig",
        "set",
        "plugin",
        "D",
        "pidfile",
        "runas",
        "sandbox",
        "L",
    ]
}

fn disk(path: &Path) -> VmSpec {
    spec(&format!("[[disk]]\npath = {path:?}"))
}

#[tokio::test]
async fn where_paths_lead_is_looked_up_in_storage() {
    let temp = tempfile::tempdir().unwrap();
    let (vms, link) = (temp.path().join("vms"), temp.path().join("vms/link"));
    fs::create_dir(&vms).unwrap();
    symlink("/etc/shadow", &link).unwrap();
    let policy = Policy { paths: vec![vms.clone()], ..Policy::default() };
    let (own, storage) = (Qemu::default(), Storage::default());
    let good = policy.breaches(&disk(&vms.join("a.img")), &own, &storage).await.unwrap();
    assert_eq!(good, []);
    let bad = policy.breaches(&disk(&link), &own, &storage).await.unwrap();
    assert_eq!(bad, [Breach::path("disk.path", &link)]);
}

#[tokio::test]
async fn storage_that_does_not_answer_is_named_and_holds_no_further_thread() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("disk.img");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let policy = Policy { paths: vec![temp.path().to_owned()], ..Policy::default() };
    let storage = Storage::new(Duration::from_secs(1), 2);
    // Its open hangs, as all calls do below the mount of a server that is gone.
    storage.open(&path, false).await.unwrap_err();
    let unseen = policy.breaches(&disk(&path), &Qemu::default(), &storage).await.unwrap_err();
    assert!(matches!(unseen.error, StorageError::Hangs), "{unseen}");
    assert_eq!(unseen.path, path);
    let none = Storage::new(Duration::from_secs(1), 0);
    let unseen = policy.breaches(&disk(&path), &Qemu::default(), &none).await.unwrap_err();
    assert!(matches!(unseen.error, StorageError::Full), "{unseen}");
    fs::OpenOptions::new().write(true).open(&path).unwrap();
}

#[test]
fn a_policy_file_is_read_or_refused() {
    let temp = tempfile::tempdir().unwrap();
    let settings = temp.path().join("agent.toml");
    assert_eq!(Policy::beside(&settings).unwrap(), Policy::default());
    fs::write(temp.path().join(FILE), "paths = ['/data']\nsandbox = false\n").unwrap();
    let policy = Policy::beside(&settings).unwrap();
    assert_eq!((policy.paths.len(), policy.sandbox), (1, false));
    assert_eq!(policy.binaries, Policy::default().binaries);
    for (text, hint) in [
        ("path = ['/data']", "path"),
        ("paths = ['data']", "absolute"),
        ("paths = ['/data/../etc']", "absolute"),
        ("extra_args = ['-device']", "-device KIND"),
        ("extra_args = ['-no-reboot *']", "takes no argument"),
        ("extra_args = ['virtio-rng-pci']", "no option"),
        ("extra_args = ['-device a,b=c']", "first word"),
    ] {
        fs::write(temp.path().join(FILE), text).unwrap();
        let error = format!("{:#}", Policy::beside(&settings).unwrap_err());
        assert!(error.contains(hint) && error.contains(FILE), "{error}");
    }
}

/// QEMU's own loop, from its `system/vl.c`: what it does with each word.
#[derive(Debug, PartialEq)]
enum Seen {
    Option(String, Option<String>),
    Disk,
    Error,
}

fn qemu(words: &[String]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let mut r = words[at].as_bytes();
        at += 1;
        if r.first() != Some(&b'-') {
            seen.push(Seen::Disk);
            continue;
        }
        if r.get(1) == Some(&b'-') {
            r = &r[1..];
        }
        let name = String::from_utf8_lossy(&r[1..]).into_owned();
        if options::is_flag(&name) {
            seen.push(Seen::Option(name, None));
        } else if let Some(value) = words.get(at) {
            at += 1;
            seen.push(Seen::Option(name, Some(value.clone())));
        } else {
            seen.push(Seen::Error);
        }
    }
    seen
}

fn word() -> impl Strategy<Value = String> {
    let options =
        ["incoming", "S", "device", "no-reboot", "usb", "readconfig", "set", "drive", "-x", ""];
    let dashed =
        (prop::sample::select(vec!["-", "--", "---", ""]), prop::sample::select(options.to_vec()));
    prop_oneof![
        4 => dashed.prop_map(|(dashes, name)| format!("{dashes}{name}")),
        2 => prop::sample::select(vec!["virtio-rng-pci", "vfio-pci", "virtio-rng-pci,driver=vfio-pci", "a.img"])
            .prop_map(str::to_owned),
        1 => "[-a-z,=/.:{}\"]{0,12}",
    ]
}

proptest! {
    /// Whatever words an attacker puts together: what passes is, to QEMU, nothing but listed options.
    #[test]
    fn what_passes_is_listed_as_qemu_reads_it(words in prop::collection::vec(word(), 0..6)) {
        let policy = policy(&["-device virtio-rng-pci", "-no-reboot"]);
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        if said(&policy, &texts).is_empty() {
            for seen in qemu(&words) {
                let listed = match &seen {
                    Seen::Option(name, None) => name == "no-reboot",
                    Seen::Option(name, Some(value)) => {
                        name == "device" && value.contains("virtio-rng-pci") && !value.contains("vfio-pci")
                    }
                    Seen::Disk | Seen::Error => false,
                };
                prop_assert!(listed, "{:?} in {:?}", seen, words);
            }
        }
    }

    /// Keys and values come back as they were written, commas and all.
    #[test]
    fn keys_and_values_are_read_back(
        first in "[a-z:/,-]{1,8}",
        more in prop::collection::vec(("[a-z.-]{1,5}", "[a-z=:/,{}\"-]{0,8}"), 0..5),
    ) {
        let escaped = |text: &str| text.replace(',', ",,");
        let mut text = escaped(&first);
        more.iter().for_each(|(key, value)| text += &format!(",{key}={}", escaped(value)));
        let mut expected = vec![("kind".to_owned(), first)];
        expected.extend(more);
        prop_assert_eq!(split("kind", &text), expected);
    }

    /// No value hides a path from the look at it, whatever is before and behind it.
    #[test]
    fn a_path_is_found_wherever_it_is(
        before in prop::collection::vec("[a-z]{1,3}=[a-z,]{0,4}", 0..3),
        key in "[a-z]{1,8}",
        json in any::<bool>(),
    ) {
        let policy = policy(&["-device *"]);
        let before: Vec<String> = before.iter().map(|pair| pair.replace(',', ",,")).collect();
        let text = if json {
            format!(r#"{{"driver":"x","deep":{{"{key}":["\u002fetc\/shadow"]}}}}"#)
        } else {
            format!("x,{}{key}=/etc/shadow", before.iter().map(|pair| format!("{pair},")).collect::<String>())
        };
        prop_assert!(!said(&policy, &["-device", &text]).is_empty(), "{}", text);
    }
}
