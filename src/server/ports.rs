//! The ports of the service: claimed at the start, opened when it is ready.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::ServerError;

/// The addresses of the service.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// gRPC, grpc-web and REST.
    pub main: SocketAddr,
    /// The ticketing catalogue, if it has a separate port.
    pub ticketing: Option<SocketAddr>,
}

/// Binds a port without listening: connections are refused until the service is ready. Port 0 is a free one, which nobody
/// else gets meanwhile.
///
/// # Errors
/// Says why the port cannot be bound.
pub fn bind(address: SocketAddr) -> Result<TcpSocket, ServerError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // For a port with a number, so that connections of a former run do not keep it. The system may give a free port with
        // this option to two sockets, as long as neither listens (socket(7)).
        socket.set_reuseaddr(address.port() != 0)?;
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        // Connections have the option from here: the next run may be given this port by its number.
        socket.set_reuseaddr(true)?;
        Ok(socket)
    };
    bind().map_err(|source| ServerError::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_free_port_is_given_to_one_only() {
        let bound: Vec<TcpSocket> = (0..300).map(|_| bind(([127, 0, 0, 1], 0).into()).unwrap()).collect();
        let ports: HashSet<u16> = bound.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), bound.len());
    }

    #[tokio::test]
    async fn connections_of_a_former_run_keep_no_port() {
        for _ in 0..20 {
            let listener = bind(([127, 0, 0, 1], 0).into()).unwrap().listen(16).unwrap();
            let address = listener.local_addr().unwrap();
            let client = tokio::net::TcpStream::connect(address).await.unwrap();
            let (connection, _) = listener.accept().await.unwrap();
            // Whoever closes first keeps the port for a while.
            drop((connection, listener));
            client.readable().await.unwrap();
            drop(client);
            bind(address).unwrap().listen(16).unwrap();
        }
    }
}
