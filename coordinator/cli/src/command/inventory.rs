//! inventory import, show, check.

use std::{io::Read, path::Path};

use rackferry_inventory::{SIZE_LIMIT, read};
use rackferry_proto::v1::{GetInventoryRequest, ImportInventoryRequest, InventorySummary};

use super::Context;
use crate::{
    args::{Inventory, Output},
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Inventory) -> Result<Code, Failure> {
    match args {
        Inventory::Import { file } => import(context, &file).await,
        Inventory::Show => show(context).await,
        Inventory::Check { file } => check(&file, context.output),
    }
}

/// Looks for mistakes in a file.
///
/// # Errors
/// If it cannot be read, or has any.
pub fn check(path: &Path, output: Output) -> Result<Code, Failure> {
    let (name, _, summary) = load(path)?;
    let table = || render::site::checked(&name, &summary);
    super::print(output, table, || render::json::checked(&summary));
    Ok(Code::Done)
}

async fn import(context: &Context, path: &Path) -> Result<Code, Failure> {
    // What is wrong with it need not travel.
    let (name, text, _) = load(path)?;
    let request = ImportInventoryRequest { name, text };
    let import = async |client: Client| client.inventory().import_inventory(request.clone()).await;
    let answer = context.call(import).await?.into_inner();
    let summary = answer.summary.ok_or(Failure::Answer("summary"))?;
    context.print(
        || render::site::imported(answer.changed, &summary),
        || render::json::imported(answer.changed, &summary),
    );
    Ok(Code::Done)
}

async fn show(context: &Context) -> Result<Code, Failure> {
    let get = async |client: Client| client.inventory().get_inventory(GetInventoryRequest {}).await;
    let inventory = context.call(get).await?.into_inner();
    context.print(|| render::site::inventory(&inventory), || render::json::inventory(&inventory));
    Ok(Code::Done)
}

/// A file without mistakes: its name, its text, and how much is in it.
fn load(path: &Path) -> Result<(String, String, InventorySummary), Failure> {
    let failed = |source| Failure::File { path: path.to_owned(), source };
    // One byte more than may be is enough to know.
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(SIZE_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()))
    })?;
    let name = path.display().to_string();
    let inventory =
        read(&name, &text).map_err(|mistakes| Failure::Inventory(Box::new(mistakes)))?;
    let summary = InventorySummary {
        racks: inventory.racks.len() as u32,
        hosts: inventory.racks.iter().map(|rack| rack.hosts.len() as u32).sum(),
        spines: inventory.spines.len() as u32,
        links: inventory.links.len() as u32,
        policies: inventory.policies.len() as u32,
        vms: inventory.vms.len() as u32,
    };
    Ok((name, text, summary))
}
