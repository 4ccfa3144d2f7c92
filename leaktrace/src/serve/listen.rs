//! The address that is listened on, taken before anything is traced.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow};
use tokio::net::TcpListener;

/// An address, listened on.
pub struct Listener {
    pub(super) socket: TcpListener,
    /// The address: with the port that was chosen, if any was wanted.
    pub address: SocketAddr,
}

impl Listener {
    /// Takes the address.
    ///
    /// # Errors
    /// One line saying why it is not to be had.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| refusal(address, &error))?;
        let address = socket.local_addr().context("cannot tell which port is listened on")?;
        Ok(Self { socket, address })
    }

    /// The address of the index page.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, super::route::INDEX)
    }

    /// Whether only this machine can reach it.
    pub(super) fn is_local(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// What is to be said of who can read what is served, if not only this machine can.
    pub fn warning(&self) -> Option<String> {
        (!self.is_local()).then(|| {
            format!(
                "{} is not only this machine's: whoever reaches it can read the stacks and the command line of the \
                 process; there is no password",
                self.address
            )
        })
    }
}

fn refusal(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "cannot listen on {address}: another program does already; choose another port, as in --listen {}:0 for any \
             that is free",
            host(address)
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("cannot listen on {address}: this machine has no such address; `ip address` shows those it has")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("cannot listen on {address}: permission denied; ports below 1024 need root, choose a higher one")
        }
        _ => anyhow!("cannot listen on {address}: {error}"),
    }
}

fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}
