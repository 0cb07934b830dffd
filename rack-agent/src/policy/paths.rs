//! Paths of a spec, against the folders that a policy allows.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Where udev makes links to device nodes: they are the host's own.
const DEV: &str = "/dev";

/// Whether a path lies in one of the folders, or is one of them. Links that can be followed are: what they lead to, by
/// `real`, has to lie there, too.
pub fn inside(folders: &[PathBuf], path: &Path, real: impl Fn(&Path) -> Option<PathBuf>) -> bool {
    if !path.is_absolute() || !is_straight(path) {
        return false;
    }
    let named = folders.iter().filter(|folder| path.starts_with(folder));
    // A volume's name is a link to a node elsewhere in /dev.
    let named =
        named.map(|folder| if folder.starts_with(DEV) { Path::new(DEV) } else { folder.as_path() });
    let roots: Vec<_> = named.map(|root| real(root).unwrap_or_else(|| root.to_owned())).collect();
    if roots.is_empty() {
        return false;
    }
    real(path).is_some_and(|real| roots.iter().any(|root| real.starts_with(root)))
}

/// Whether a path has no `..`.
pub fn is_straight(path: &Path) -> bool {
    !path.components().any(|part| part == Component::ParentDir)
}

/// Where a path leads. What is not there yet lies where its folder is; `None`: it cannot be told. Blocks.
pub fn real(path: &Path) -> Option<PathBuf> {
    match fs::canonicalize(path) {
        Ok(real) => Some(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link to what is not there would be followed by whatever makes it.
            if fs::symlink_metadata(path).is_ok() {
                return None;
            }
            real(path.parent()?).map(|folder| folder.join(path.file_name().unwrap_or_default()))
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn inside(folders: &[PathBuf], path: &Path) -> bool {
        super::inside(folders, path, real)
    }

    #[test]
    fn a_path_lies_in_a_folder_by_name_and_where_it_leads() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let (vms, elsewhere) = (root.join("vms"), root.join("elsewhere"));
        fs::create_dir(&vms).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(vms.join("a.img"), "").unwrap();
        fs::write(elsewhere.join("secret"), "").unwrap();
        symlink(elsewhere.join("secret"), vms.join("link")).unwrap();
        symlink(elsewhere.join("not-yet"), vms.join("dangling")).unwrap();
        symlink(&elsewhere, vms.join("folder")).unwrap();
        symlink(&vms, root.join("alias")).unwrap();
        symlink("loop", vms.join("loop")).unwrap();
        let folders = [vms.clone(), root.join("alias")];
        for good in ["vms/a.img", "vms/new.img", "vms/new/folder/x", "alias/a.img", "vms"] {
            assert!(inside(&folders, &root.join(good)), "{good}");
        }
        for bad in [
            "vms/link",
            "vms/dangling",
            "vms/folder/secret",
            "vms/folder/new",
            "vms/loop",
            "vms/../elsewhere/secret",
            "vms/../vms/a.img",
            "vms-too/a.img",
            "elsewhere/secret",
        ] {
            assert!(!inside(&folders, &root.join(bad)), "{bad}");
        }
        assert!(!inside(&folders, Path::new("vms/a.img")), "relative");
        assert!(!inside(&[], &vms.join("a.img")));
    }

    #[test]
    fn a_devices_name_may_lead_to_any_node_and_to_nothing_else() {
        // It leads to /proc/self/fd.
        assert!(!inside(&["/dev/fd".into()], Path::new("/dev/fd")));
        assert!(inside(&["/dev/null".into()], Path::new("/dev/null")));
        assert!(!inside(&["/dev/null".into()], Path::new("/dev/zero")));
    }
}
