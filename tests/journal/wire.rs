//! The wire between a journal and its database, which is cut at the worst moments: after a request was
//! carried out and before its answer is heard, and halfway through a request.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use actix_web::rt::spawn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

pub struct Wire {
    /// How to connect through it.
    pub config: Config,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    /// The next batch is cut; its repetition is not.
    due: Cell<bool>,
    cuts: Cell<Cuts>,
    round_trips: Cell<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Cuts {
    /// What was asked was done, and nobody heard of it.
    pub answers: u32,
    /// What was asked arrived in part.
    pub requests: u32,
}

/// A request of so many bytes writes a batch; what sets a connection up is smaller.
const BATCH_BYTES_MIN: usize = 8 * 1024;

impl Wire {
    pub async fn to(database: &Config) -> Self {
        let [Host::Unix(folder)] = database.get_hosts() else { panic!("the test cluster has one socket") };
        let socket = folder.join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut config = Config::new();
        config.host("127.0.0.1").port(listener.local_addr().expect("an address").port());
        config.user(database.get_user().expect("a user")).dbname(database.get_dbname().expect("a name"));
        let state = Rc::new(State::default());
        spawn(accept(listener, socket, state.clone()));
        Self { config, state }
    }

    pub fn cut_next_batch(&self) {
        self.state.due.set(true);
    }

    /// How often something was asked after an answer, or for the first time.
    pub fn round_trips(&self) -> u32 {
        self.state.round_trips.get()
    }

    pub fn cuts(&self) -> Cuts {
        self.state.cuts.get()
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, state: Rc<State>) {
    while let Ok((here, _)) = listener.accept().await {
        let there = UnixStream::connect(&socket).await.expect("the database");
        spawn(carry(here, there, state.clone()));
    }
}

async fn carry(mut here: TcpStream, mut there: UnixStream, state: Rc<State>) {
    let (mut up, mut down) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut asking = false;
    loop {
        tokio::select! {
            read = here.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                if !std::mem::replace(&mut asking, true) {
                    state.round_trips.set(state.round_trips.get() + 1);
                }
                if read < BATCH_BYTES_MIN || !state.due.replace(false) {
                    if there.write_all(&up[..read]).await.is_err() {
                        return;
                    }
                    continue;
                }
                let mut cuts = state.cuts.get();
                if (cuts.answers + cuts.requests) % 3 == 2 {
                    cuts.requests += 1;
                    drop(there.write_all(&up[..read / 2]).await);
                } else {
                    cuts.answers += 1;
                    drop(there.write_all(&up[..read]).await);
                    until_answered(&mut here, &mut there).await;
                }
                state.cuts.set(cuts);
                return;
            }
            read = there.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                asking = false;
                if here.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Carries the rest of a request until the database's first word, which says that it was carried out, and is lost.
async fn until_answered(here: &mut TcpStream, there: &mut UnixStream) {
    let (mut up, mut down) = (vec![0; 1 << 16], [0; 1]);
    loop {
        tokio::select! {
            read = here.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                drop(there.write_all(&up[..read]).await);
            }
            _ = there.read(&mut down) => return,
        }
    }
}
