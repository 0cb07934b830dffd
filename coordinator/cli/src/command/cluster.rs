//! cluster: the coordinators themselves.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rackferry_proto::v1::{
    self, AddNodeRequest, BackupClusterRequest, BackupClusterResponse, GetClusterRequest,
    RemoveNodeRequest,
};
use tonic::Streaming;

use super::Context;
use crate::{
    args::Cluster,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Cluster) -> Result<Code, Failure> {
    let cluster = match args {
        Cluster::Status => {
            context.client.cluster().get_cluster(GetClusterRequest {}).await?.into_inner().cluster
        }
        Cluster::Add { id, addr } => {
            let request = AddNodeRequest { id, addr };
            let add = async |client: crate::client::Client| {
                client.cluster().add_node(request.clone()).await
            };
            context.call(add).await?.into_inner().cluster
        }
        Cluster::Backup { file } => return backup(context, &file).await,
        Cluster::Remove { id } => {
            let request = RemoveNodeRequest { id };
            let remove =
                async |client: crate::client::Client| client.cluster().remove_node(request).await;
            context.call(remove).await?.into_inner().cluster
        }
    };
    show(context, &cluster.ok_or(Failure::Answer("cluster"))?);
    Ok(Code::Done)
}

/// Writes what the leader sends; a file that is not whole does not stay.
async fn backup(context: &Context, file: &Path) -> Result<Code, Failure> {
    let ask = async |client: crate::client::Client| {
        client.cluster().backup_cluster(BackupClusterRequest {}).await
    };
    let parts = context.call(ask).await?.into_inner();
    // Never in place of another one, and never for others to read.
    let mut options = OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|source| Failure::Write { path: file.to_owned(), source })?;
    match write(parts, &mut out).await {
        Ok(bytes) => {
            let text = || {
                format!(
                    "{}: {} bytes. It holds the key of the dedup domain: keep it where no one else reads it.",
                    file.display(),
                    bytes
                )
            };
            context.print(text, || render::json::backup(file, bytes));
            Ok(Code::Done)
        }
        Err(failure) => {
            // It says nothing that this does not.
            let _ = std::fs::remove_file(file);
            Err(failure)
        }
    }
}

async fn write(
    mut parts: Streaming<BackupClusterResponse>,
    out: &mut File,
) -> Result<usize, Failure> {
    let mut bytes = 0;
    while let Some(BackupClusterResponse { part }) = parts.message().await? {
        out.write_all(&part)?;
        bytes += part.len();
    }
    out.sync_all()?;
    Ok(bytes)
}

fn show(context: &Context, cluster: &v1::Cluster) {
    context.print(|| render::cluster::status(cluster), || render::json::cluster(cluster));
}
