//! What the servers of the lab and their clients share.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A login attempt, seen by the one who made it.
pub struct Outcome {
    pub admitted: bool,
    /// All that the server, or the client on its behalf, said.
    pub said: String,
}

impl Outcome {
    #[track_caller]
    pub fn expect_admitted(&self, what: &str) {
        assert!(self.admitted, "{what} must be admitted, but the client was told: {}", self.said);
    }

    #[track_caller]
    pub fn expect_refused(&self, what: &str) {
        assert!(!self.admitted, "{what} must be refused, but got in: {}", self.said);
    }
}

/// A server process of the lab, killed when dropped. (Its own children end with the lab.)
pub struct Daemon(Child);

impl Daemon {
    /// Starts a server and waits until it answers on `port`.
    pub fn start(command: &mut Command, port: u16) -> Daemon {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        super::await_until(&format!("{command:?} to listen on port {port}"), || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{command:?} ended at once: {status}");
            }
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        Daemon(child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The address of the lab's servers for a client at `source`.
pub fn server_for(source: &str) -> IpAddr {
    match source.parse().expect("an address") {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// A protocol of lines, spoken from a source address of our choice.
pub struct Dialogue {
    reader: BufReader<TcpStream>,
}

impl Dialogue {
    pub fn open(source: &str, port: u16) -> Dialogue {
        let server = SocketAddr::new(server_for(source), port);
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
        let source = SocketAddr::new(source.parse().unwrap(), 0);
        socket.bind(&source.into()).expect("an address of the lab");
        socket.connect(&server.into()).expect("a server that listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Dialogue { reader: BufReader::new(stream) }
    }

    pub fn say(&mut self, line: &str) {
        write!(self.reader.get_mut(), "{line}\r\n").expect("a server that reads");
    }

    /// The next line that begins with one of `starts`; at the end of the dialogue what came.
    pub fn hear(&mut self, starts: &[&str]) -> String {
        let mut line = String::new();
        for _ in 0..100 {
            line.clear();
            let length = self.reader.read_line(&mut line).expect("an answer within the time");
            if length == 0 || starts.iter().any(|start| line.starts_with(start)) {
                break;
            }
        }
        line.trim_end().to_owned()
    }
}
