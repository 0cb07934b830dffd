//! What cargo says of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{cargo, quiet};

/// When a dependency is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Always.
    Normal,
    /// By tests, benches and examples.
    Dev,
    /// By the build script.
    Build,
}

/// A crate of the workspace.
#[derive(Debug)]
pub struct Package {
    /// Its folder.
    pub folder: PathBuf,
    /// The root files of its targets.
    pub targets: Vec<PathBuf>,
    /// What it depends on, by the name in its `Cargo.toml`.
    pub dependencies: BTreeSet<(String, Kind)>,
}

/// The crates of the workspace by name.
pub fn packages() -> Result<BTreeMap<String, Package>> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let said: Value = serde_json::from_str(&quiet(&mut cargo(arguments))?)?;
    let packages = said["packages"].as_array().context("cargo metadata without packages")?;
    packages.iter().map(|package| read(package).context("cargo metadata")).collect()
}

fn read(package: &Value) -> Option<(String, Package)> {
    let mut folder = PathBuf::from(package["manifest_path"].as_str()?);
    folder.pop();
    let targets = package["targets"].as_array()?.iter();
    let targets = targets.filter_map(|target| target["src_path"].as_str()).map(PathBuf::from);
    let dependencies = package["dependencies"].as_array()?.iter().map(|dependency| {
        let name = dependency["rename"].as_str().or(dependency["name"].as_str())?;
        let kind = match dependency["kind"].as_str() {
            None => Kind::Normal,
            Some("build") => Kind::Build,
            Some(_) => Kind::Dev,
        };
        Some((name.to_owned(), kind))
    });
    let dependencies = dependencies.collect::<Option<_>>()?;
    let package_name = package["name"].as_str()?.to_owned();
    Some((package_name, Package { folder, targets: targets.collect(), dependencies }))
}
