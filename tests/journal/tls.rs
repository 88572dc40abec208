//! A database that is reached over TLS: who must show which certificate, and that the journal writes as ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_web::rt::spawn;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use songflight::id::fresh;
use songflight::ops::private_postgres::for_tests;
use songflight::store::journal::Committed;
use songflight::store::server::Server;
use songflight::store::{StoreError, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_rustls::TlsAcceptor;

use super::life::Life;
use super::world::World;

/// A server with a certificate for `localhost`, before the socket of a database.
struct Front {
    port: u16,
    database: String,
    authority: PathBuf,
}

/// What a client sends that would like to have TLS (PostgreSQL's protocol, `SSLRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

impl Front {
    async fn of(database: &Config) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();

        let [Host::Unix(folder)] = database.get_hosts() else { panic!("the test cluster has one socket") };
        let socket = folder.join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        spawn(accept(listener, socket, TlsAcceptor::from(Arc::new(config))));
        let file = std::env::temp_dir().join(format!("songflight-tls-{}.pem", fresh()));
        std::fs::write(&file, authority.pem()).unwrap();
        let (user, name) = (database.get_user().unwrap(), database.get_dbname().unwrap());
        Self { port, database: format!("{name}?user={user}"), authority: file }
    }

    fn server(&self, host: &str, mode: &str, authority: Option<&Path>) -> Server {
        let roots = authority.map(|file| format!("&sslrootcert={}", file.display())).unwrap_or_default();
        let url = format!("postgres://{host}:{}/{}&sslmode={mode}{roots}", self.port, self.database);
        url.parse().unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.authority);
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, acceptor: TlsAcceptor) {
    while let Ok((here, _)) = listener.accept().await {
        spawn(carry(here, socket.clone(), acceptor.clone()));
    }
}

/// Whoever does not ask for TLS is not let in.
async fn carry(mut here: TcpStream, socket: PathBuf, acceptor: TlsAcceptor) -> std::io::Result<()> {
    let mut asked = [0; 8];
    here.read_exact(&mut asked).await?;
    if asked != SSL_REQUEST {
        return Ok(());
    }
    here.write_all(b"S").await?;
    let mut here = acceptor.accept(here).await?;
    let mut there = UnixStream::connect(socket).await?;
    copy_bidirectional(&mut here, &mut there).await.map(drop)
}

async fn reach(server: Server) -> Result<(), String> {
    let client = connect(server, "test").await.map_err(|error: StoreError| error.to_string())?;
    client.query_one("select 1", &[]).await.map(drop).map_err(|error| error.to_string())
}

#[actix_web::test]
async fn a_server_shows_the_certificate_that_its_url_asks_for() {
    let database = for_tests().fresh_database("journal_tls").await.expect("a database");
    let (front, stranger) = (Front::of(&database).await, Front::of(&database).await);
    let ours = Some(&*front.authority);
    let others = Some(&*stranger.authority);

    for (host, mode, authority) in [
        ("localhost", "verify-full", ours),
        ("127.0.0.1", "verify-ca", ours),
        ("127.0.0.1", "require", ours),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "prefer", None),
    ] {
        let reached = reach(front.server(host, mode, authority)).await;
        assert_eq!(reached, Ok(()), "{host} {mode}");
    }
    for (host, mode, authority, why) in [
        ("127.0.0.1", "verify-full", ours, "not valid for name"),
        ("localhost", "verify-full", others, "certificate"),
        ("localhost", "verify-ca", others, "certificate"),
        ("localhost", "require", others, "certificate"),
        ("localhost", "verify-ca", None, "UnknownIssuer"),
    ] {
        let refused = reach(front.server(host, mode, authority)).await.expect_err(mode);
        assert!(refused.contains(why), "{host} {mode}: {refused}");
    }
    assert!(reach(front.server("localhost", "disable", None)).await.is_err(), "only TLS is let in here");
}

#[actix_web::test]
async fn a_server_without_tls_is_refused_by_who_requires_it() {
    let (_world, wire) = World::behind_a_wire("no_tls").await;
    let mut config = wire.config.clone();
    assert_eq!(reach(Server::from(&config)).await, Ok(()));
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let refused = reach(Server::from(&config)).await.expect_err("no TLS there");
    assert!(refused.contains("TLS"), "{refused}");
}

#[actix_web::test]
async fn a_song_lives_its_whole_life_over_tls() {
    let database = for_tests().fresh_database("journal_tls_life").await.expect("a database");
    let front = Front::of(&database).await;
    let server = front.server("localhost", "verify-full", Some(&front.authority));
    let mut world = World::through(database, server).await;
    let mut song = Life::new("alice");
    world.begin();
    world.create_all(std::slice::from_ref(&song)).await;
    for act in 0..Life::ACTS {
        assert_eq!(world.step(song.next(act)).await, Ok(Committed::Moved));
    }
    world.audit().await;
}
