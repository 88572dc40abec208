//! The cable between a server and its database, which can be cut or go dead.

use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Whole,
    /// Connections break, and none can be made.
    Cut,
    /// Nothing comes through, and nobody says so.
    Dead,
    /// Another one: what was connected by the dead one stays so, and whoever connects anew comes through.
    Another,
}

pub struct Cable {
    /// What `DATABASE_URL` is to be.
    pub url: String,
    state: watch::Sender<State>,
}

impl Cable {
    /// A cable to this database.
    pub async fn to(database: &Config) -> Self {
        let [Host::Unix(folder)] = database.get_hosts() else { panic!("the test cluster has one socket") };
        let socket = folder.join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (user, name) = (database.get_user().expect("a user"), database.get_dbname().expect("a name"));
        let (state, watched) = watch::channel(State::Whole);
        tokio::spawn(accept(listener, socket, watched));
        Self { url: format!("postgres://{user}@{address}/{name}"), state }
    }

    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub fn go_dead(&self) {
        self.state.send_replace(State::Dead);
    }

    /// As where another host takes the place of one that vanished.
    pub fn lay_another(&self) {
        self.state.send_replace(State::Another);
    }

    pub fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, state: watch::Receiver<State>) {
    while let Ok((here, _)) = listener.accept().await {
        if *state.borrow() == State::Cut {
            continue;
        }
        let (socket, state) = (socket.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(there) = UnixStream::connect(socket).await else { return };
            join(here, there, state).await;
        });
    }
}

async fn join(here: TcpStream, there: UnixStream, mut state: watch::Receiver<State>) {
    let by_another = *state.borrow() == State::Another;
    let through = move |state: &State| match state {
        State::Whole | State::Cut => true,
        State::Dead => false,
        State::Another => by_another,
    };
    let (from_here, to_here) = here.into_split();
    let (from_there, to_there) = there.into_split();
    let (up, down) = (state.clone(), state.clone());
    tokio::select! {
        () = carry(from_here, to_there, up, through) => {}
        () = carry(from_there, to_here, down, through) => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    through: impl Fn(&State) -> bool,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
        if state.wait_for(&through).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
