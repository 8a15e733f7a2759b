//! Ports that stay ours.
//!
//! Binding port 0, noting the number and releasing it leaves a gap: until the server binds it, and again whenever the
//! server is stopped and brought back, anybody may take the port. Even the client under test may: reconnecting to a
//! closed port of its own machine, it is now and then given that very port as its local one, and connects to itself.
//!
//! So the number is held by a socket that is bound but never listens. Linux lets a second socket listen on the port as
//! long as both ask for SO_REUSEADDR (every server does), refuses connections while none listens, and never hands the
//! port out by itself.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A TCP port of 127.0.0.1, reserved until dropped.
pub(super) struct Port {
    number: u16,
    _reservation: Socket,
}

impl Port {
    pub(super) fn reserve() -> Result<Port, String> {
        let attempt = || -> std::io::Result<Port> {
            let reservation = bind(0)?;
            let address = reservation.local_addr()?.as_socket();
            let number = address.map(|address| address.port()).unwrap_or_default();
            Ok(Port { number, _reservation: reservation })
        };
        attempt().map_err(|error| format!("no free port on 127.0.0.1: {error}"))
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// A listener on the reserved port.
    pub(super) fn listen(&self) -> std::io::Result<Socket> {
        let socket = bind(self.number)?;
        socket.listen(128)?;
        Ok(socket)
    }
}

fn bind(number: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, number)).into())?;
    Ok(socket)
}
