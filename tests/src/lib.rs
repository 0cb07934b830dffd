//! Lab A: two racks in network namespaces, real QEMU guests, and verbs for what tests do with them.

pub mod image;
