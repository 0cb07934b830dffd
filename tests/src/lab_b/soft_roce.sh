# Makes the device rxe0 of the outer machine: Soft-RoCE over a link of its own, with packets of 4096 bytes.
# Both ends of a connection are this device.
ip link add rdma0 type dummy &&
    ip link set rdma0 mtu 4200 up &&
    ip addr add 192.0.2.1/24 dev rdma0 &&
    rdma link add rxe0 type rxe netdev rdma0 ||
    echo "lab-b: there is no device rxe0"
