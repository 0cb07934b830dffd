//! cluster: the coordinators themselves.

use rackferry_proto::v1::{self, AddNodeRequest, GetClusterRequest, RemoveNodeRequest};

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

fn show(context: &Context, cluster: &v1::Cluster) {
    context.print(|| render::cluster::status(cluster), || render::json::cluster(cluster));
}
