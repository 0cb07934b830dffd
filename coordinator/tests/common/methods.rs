//! Every method of the site's services.

use prost::Message;
use rackferry_proto::FILE_DESCRIPTOR_SET;

/// Their paths: `/rackferry.v1.InventoryService/ListVms`.
pub fn methods() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
    let mut paths = Vec::new();
    for file in files {
        for service in &file.service {
            let name = format!("/{}.{}", file.package(), service.name());
            paths.extend(service.method.iter().map(|one| format!("{name}/{}", one.name())));
        }
    }
    paths
}
