//! QEMUs that run as users of their own: what they have, and what they do not reach.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rackferry_agent::vm::{MigrationId, QemuUids, Vm, VmError, VmState};

use crate::disk::Image;
use crate::host::{Host, spec};
use crate::qemus::qemus;

/// The socket that a process of this test, started as another user, tries.
const TRIES: &str = "RACKFERRY_TEST_TRIES_SOCKET";

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root starts QEMUs as other users");
    }
    is_root
}

fn status_of(pid: u32, field: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().map(Into::into).collect()
}

fn pid(vm: &Vm) -> u32 {
    vm.process().unwrap().id().pid
}

/// Runs a program as a VM's QEMU might, in the folder that it stands in.
fn as_qemu(vm: &Vm, mut command: Command) -> (bool, String) {
    let uid = vm.status().uid.unwrap();
    let folder = File::open(vm.dir().run()).unwrap();
    command.uid(uid).gid(uid).current_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn shell(vm: &Vm, script: &str) -> (bool, String) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    as_qemu(vm, command)
}

/// Connects to a socket as a VM's QEMU might; true if it can.
fn connects(vm: &Vm, socket: &Path) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "user::tries_a_socket", "--nocapture"]).env(TRIES, socket);
    let (success, said) = as_qemu(vm, command);
    assert!(success && said.contains("1 passed"), "{said}");
    said.contains("connected")
}

/// No test: what [`connects`] starts.
#[test]
fn tries_a_socket() {
    let Some(socket) = std::env::var_os(TRIES) else { return };
    match UnixStream::connect(&socket) {
        Ok(_) => println!("connected"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
    }
}

#[tokio::test]
async fn each_qemu_has_a_user_of_its_own_and_no_rights() {
    for (_, qemu) in qemus() {
        if !is_root() {
            return;
        }
        let host = Host::open(&qemu, 1 << 30).await;
        let a = host.vms.start(spec("a", ""), 1).await.unwrap();
        let b = host.vms.prepare_incoming(spec("b", ""), MigrationId(1), 2).await.unwrap();
        let uids = [&a, &b].map(|vm| vm.status().uid.unwrap());
        assert_ne!(uids[0], uids[1]);
        for (vm, uid) in [&a, &b].into_iter().zip(uids) {
            assert!((1_900_000_000..1_900_065_535).contains(&uid), "{uid}");
            assert_eq!(status_of(pid(vm), "Uid"), vec![uid.to_string(); 4]);
            assert_eq!(status_of(pid(vm), "Gid"), vec![uid.to_string(); 4]);
            assert!(status_of(pid(vm), "Groups").is_empty());
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(status_of(pid(vm), set), ["0000000000000000"], "{set}");
            }
            assert_eq!(status_of(pid(vm), "NoNewPrivs"), ["1"]);
        }
    }
}

#[tokio::test]
async fn a_qemu_reaches_neither_its_neighbours_nor_its_agents_files() {
    for (_, qemu) in qemus().into_iter().take(1) {
        if !is_root() {
            return;
        }
        let host = Host::open(&qemu, 1 << 30).await;
        let a = host.vms.start(spec("a", ""), 1).await.unwrap();
        let b = host.vms.prepare_incoming(spec("b", ""), MigrationId(1), 2).await.unwrap();
        // The one wall is the folder of all VMs: in production the folders above are open.
        fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (folder, memory) = (b.dir().path().display(), pid(&b));
        for own in ["echo mine > file && rm file", "test -x .."] {
            assert!(shell(&a, own).0, "{own}: {}", shell(&a, own).1);
        }
        for script in [
            "cat ../spec.toml".to_owned(),
            "cat ../status.json".to_owned(),
            "echo {} > ../status.json".to_owned(),
            "echo x > ../file".to_owned(),
            "mv ../run ../walk".to_owned(),
            "cat ../qemu.log".to_owned(),
            "cat ../serial.log".to_owned(),
            "ls ..".to_owned(),
            "ls ../..".to_owned(),
            "ls ../../b/run".to_owned(),
            format!("ls {folder}"),
            format!("cat {folder}/spec.toml"),
            format!("ls -l /proc/{memory}/fd/"),
            format!("head -c 1 /proc/{memory}/mem"),
            format!("head -c 1 /proc/{memory}/cwd/migrate.sock"),
            format!("kill -0 {memory}"),
        ] {
            let (success, said) = shell(&a, &script);
            let refused = ["denied", "not permitted"].iter().any(|words| said.contains(words));
            assert!(!success && refused, "{script}: {said}");
        }
        let departs = a.departure_socket();
        let _listener = departs.listen().unwrap();
        assert!(connects(&a, &departs.qemu_path), "its own stream");
        for socket in [Path::new("../qmp.sock"), &b.dir().qmp_socket(), &b.arrival_socket().path] {
            assert!(!connects(&a, socket), "{}", socket.display());
        }
        assert!(!connects(&b, &departs.path));
        b.arrival_socket().connect().await.unwrap();
    }
}

#[tokio::test]
async fn a_guest_writes_to_disks_that_root_alone_may_open() {
    for (_, qemu) in qemus() {
        let host = Host::open(&qemu, 1 << 30).await;
        for image in Image::all_written(host.path()) {
            let vm = host.vms.start(spec(image.format, &image.spec()), 1).await.unwrap();
            tokio::time::timeout(crate::LIMIT, vm.died()).await.unwrap();
            assert!(vm.powered_off() && image.is_written(), "{}", image.format);
        }
        let [image, _] = Image::all_written(host.path());
        let readonly = format!("{}readonly = true\n", image.spec());
        let vm = host.vms.start(spec("readonly", &readonly), 1).await.unwrap();
        tokio::time::timeout(crate::LIMIT, vm.died()).await.unwrap();
        assert!(vm.powered_off() && !image.is_written());
    }
}

#[tokio::test]
async fn a_disk_belongs_to_one_qemu_until_that_has_ended() {
    for (_, qemu) in qemus() {
        let host = Host::open(&qemu, 1 << 30).await;
        for image in Image::all(host.path(), &[]) {
            let first = host.vms.start(spec("first", &image.spec()), 1).await.unwrap();
            match host.vms.start(spec("second", &image.spec()), 1).await {
                Err(VmError::EndedAtOnce { log, .. }) => assert!(log.contains("lock"), "{log}"),
                other => panic!("{other:?}"),
            }
            drop(first);
            host.vms.destroy("first", true).await.unwrap();
            host.vms.start(spec("second", &image.spec()), 1).await.unwrap();
            host.vms.destroy("second", true).await.unwrap();
        }
    }
}

/// An agent of before has adopted it, and has written its status without what it does not know.
#[tokio::test]
async fn a_qemu_keeps_its_user_whatever_agents_come() {
    for (_, qemu) in qemus() {
        if !is_root() {
            return;
        }
        let mut host = Host::open(&qemu, 1 << 30).await;
        let vm = host.vms.start(spec("stays", ""), 1).await.unwrap();
        let (status, sockets) = (vm.status(), (vm.departure_socket(), vm.arrival_socket()));
        let mut earlier = status.clone();
        earlier.uid = None;
        vm.dir().write_status(&earlier).unwrap();
        drop(vm);
        host.close().await;
        assert_eq!(host.reopen().await.adopted, ["stays"]);
        let vm = host.vms.get("stays").unwrap();
        assert_eq!(vm.status(), status);
        assert_eq!(vm.dir().read_status().unwrap(), status);
        assert_eq!((vm.departure_socket(), vm.arrival_socket()), sockets);
        let next = host.vms.start(spec("next", ""), 1).await.unwrap();
        assert_ne!(next.status().uid, status.uid);
    }
}

#[tokio::test]
async fn an_operator_may_have_qemus_run_as_root() {
    for (_, qemu) in qemus() {
        if !is_root() {
            return;
        }
        let mut host = Host::open_as(&qemu, 1 << 30, QemuUids::Root).await;
        let [image, _] = Image::all_written(host.path());
        let vm = host.vms.start(spec("disk", &image.spec()), 1).await.unwrap();
        tokio::time::timeout(crate::LIMIT, vm.died()).await.unwrap();
        assert!(image.is_written());
        let vm = host.vms.prepare_incoming(spec("a", ""), MigrationId(1), 2).await.unwrap();
        assert_eq!((vm.status().uid, status_of(pid(&vm), "Uid")), (None, vec!["0".to_owned(); 4]));
        assert!(!vm.dir().run().exists() && vm.arrival_socket().path.exists());
        drop(vm);
        // The setting is for QEMUs that are started from now on.
        host.close().await;
        host.set_uids(QemuUids::default());
        assert_eq!(host.reopen().await.adopted, ["a"]);
        let vm = host.vms.get("a").unwrap();
        assert_eq!((vm.status().uid, vm.run_state().await), (None, VmState::Incoming));
    }
}

#[tokio::test]
async fn what_its_user_may_not_read_is_told_with_the_cure() {
    for (_, qemu) in qemus() {
        if !is_root() {
            return;
        }
        let host = Host::open(&qemu, 1 << 30).await;
        let secret = host.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let args = format!("extra_args = ['-object', 'secret,id=s0,file={}']", secret.display());
        let refused = host.vms.start(spec("secret", &args), 1).await.unwrap_err().to_string();
        for words in ["Permission denied", "runs as uid 19", "qemu_uids = \"root\""] {
            assert!(refused.contains(words), "{words}: {refused}");
        }
        let absent = host.path().join("absent.img");
        let disk = format!("[[disk]]\npath = {absent:?}\n");
        let refused = host.vms.start(spec("absent", &disk), 1).await.unwrap_err();
        assert!(refused.to_string().contains("cannot open"), "{refused}");
        assert!(host.leftovers().is_empty(), "{:?}", host.leftovers());
    }
}

/// A tap device; removed when dropped.
struct Tap(String);

impl Tap {
    /// None where this machine makes none.
    fn make() -> Option<Self> {
        let tap = Self(format!("rft{}", std::process::id()));
        if !tap.ip("add") {
            println!("skipped: no tap device can be made here");
            return None;
        }
        Some(tap)
    }

    fn ip(&self, what: &str) -> bool {
        let mut ip = Command::new("ip");
        ip.args(["tuntap", what, "dev", &self.0, "mode", "tap"]).stderr(Stdio::null());
        ip.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ip("del");
    }
}

#[tokio::test]
async fn a_tap_device_is_opened_for_qemu() {
    for (_, qemu) in qemus() {
        let Some(tap) = Tap::make() else { return };
        let host = Host::open(&qemu, 1 << 30).await;
        let nic =
            |name| spec(name, &format!("[[nic]]\ntap = '{}'\nmac = '52:54:00:00:00:01'", tap.0));
        let vm = host.vms.start(nic("web"), 1).await.unwrap();
        let open = fs::read_dir(format!("/proc/{}/fdinfo", pid(&vm))).unwrap().flatten();
        let line = format!("iff:\t{}\n", tap.0);
        let has = |fd: &fs::DirEntry| {
            fs::read_to_string(fd.path()).is_ok_and(|info| info.contains(&line))
        };
        assert!(open.into_iter().any(|fd| has(&fd)), "it has the device");
        // A device has one guest, and is free when that has ended.
        let second = host.vms.start(nic("second"), 1).await.unwrap_err();
        assert!(matches!(&second, VmError::Tap { tap: name, .. } if *name == tap.0), "{second}");
        drop(vm);
        host.vms.destroy("web", true).await.unwrap();
        host.vms.start(nic("second"), 1).await.unwrap();
        host.vms.destroy("second", true).await.unwrap();
    }
}
