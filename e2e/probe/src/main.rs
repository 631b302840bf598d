//! What a pod of ours can do in a cluster, seen from inside: `probe NAME:PORT FILE` resolves a Service's name with the C
//! library it was linked with, connects, and keeps what it saw in FILE. Tests read its exit status and its log.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(service), Some(file)) = (arguments.next(), arguments.next()) else {
        let _ = writeln!(std::io::stderr(), "usage: probe NAME:PORT FILE");
        return ExitCode::from(2);
    };
    match probe(&service, &file) {
        Ok(address) => {
            let _ = writeln!(std::io::stdout(), "{service} is {address}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{service}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe(service: &str, file: &str) -> std::io::Result<SocketAddr> {
    let address = service
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("the name has no address"))?;
    TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    std::fs::write(file, format!("{service} is {address}\n"))?;
    Ok(address)
}
