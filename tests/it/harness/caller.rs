//! Somebody who asks and hangs up before the answer: with a reset, so that the server sees at once that nobody waits.

use std::fs;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Person, Server, eventually};

pub struct Caller {
    stream: TcpStream,
}

impl Caller {
    /// Asks, and does not look at what comes back.
    pub async fn ask(person: &Person, method: Method, path: &str, key: &str, body: &Value) -> Self {
        let address = person.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nidempotency-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            person.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        Self { stream }
    }

    /// Hangs up once the server has read all of it, and waits until it has let go of the connection and of whatever was
    /// done for it alone.
    pub async fn hang_up(self, server: &Server) {
        let ends = (self.stream.peer_addr().unwrap().port(), self.stream.local_addr().unwrap().port());
        let read = eventually("the server to read it", || async { read_to_its_end(server, ends) }).await;
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(self.stream);
        let Some(socket) = read else { return };
        eventually("the server to let go of the connection", || async {
            if open_files(server).contains(&socket) { Err(socket.clone()) } else { Ok(()) }
        })
        .await;
    }
}

/// The server's end of the connection between these ports, as its process lists it, once nothing waits there to be read;
/// `None` where the system does not tell.
fn read_to_its_end(server: &Server, ends: (u16, u16)) -> Result<Option<String>, String> {
    let Ok(table) = fs::read_to_string(format!("/proc/{}/net/tcp", server.program.pid)) else {
        return Ok(None);
    };
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|columns| {
        columns.len() > 9 && (port(columns[1]), port(columns[2])) == (Some(ends.0), Some(ends.1))
    });
    match row {
        Some(columns) if columns[4].ends_with(":00000000") && columns[9] != "0" => {
            Ok(Some(format!("socket:[{}]", columns[9])))
        }
        Some(columns) => Err(columns.join(" ")),
        None => Err("no such connection".to_owned()),
    }
}

fn open_files(server: &Server) -> Vec<String> {
    let Ok(files) = fs::read_dir(format!("/proc/{}/fd", server.program.pid)) else { return Vec::new() };
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}
