//! Where Postgres is, and how its server proves who it is: libpq's `sslmode` and `sslrootcert`, by rustls.
//!
//! Not here: what is done with a connection (`store::connect`, `store::pool`), and the private cluster, which is
//! reached by its socket and needs none of this.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A database, and the way to it. Cheap to clone.
///
/// From a url (`str::parse`) as libpq reads it: `sslmode` is `disable`, `prefer` (the default: TLS where the server has it),
/// `require`, `verify-ca` (a certificate that an authority vouches for) or `verify-full` (and for this very host).
/// `sslrootcert` is a PEM file of authorities; without it, or with `system`, they are the machine's. As with libpq a
/// certificate is not looked at in the first three unless `sslrootcert` is given.
#[derive(Clone)]
pub struct Server {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

/// Why a database's url cannot be used. Says nothing of what is in the url but the path of a file.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("must be a url such as postgres://user:password@host/database")]
    Unreadable,
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full")]
    Mode,
    #[error("sslrootcert {path}: {error}", path = .path.display())]
    Roots { path: PathBuf, error: String },
    #[error(
        "this machine has no certificates of authorities: install ca-certificates, or name a file with sslrootcert"
    )]
    NoRoots,
}

/// How long the way to a server may take, unless its url says otherwise.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A host that vanishes says nothing, and a kernel left to itself goes on sending for a quarter of an hour. Unless its url
/// says otherwise, what was sent may go unacknowledged for so long (`tcp_user_timeout`), and who idles longer is asked
/// whether it is there (`keepalives_idle`), so often at most.
const SILENT_FOR: Duration = Duration::from_secs(10);
const ASKED_EVERY: Duration = Duration::from_secs(5);
const ASKED_TIMES: u32 = 3;

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Authority,
    AuthorityAndName,
}

/// What a url says of TLS beyond what the driver reads itself.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    mode: SslMode,
    check: Check,
    /// `None`: the machine's.
    roots: Option<PathBuf>,
}

impl FromStr for Server {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let (url, wanted) = read(url)?;
        let mut config: Config = url.parse().map_err(|_| AddressError::Unreadable)?;
        give_up_in_time(&mut config, &url);
        let Some(wanted) = wanted else { return Ok(Self::from(config)) };
        config.ssl_mode(wanted.mode);
        let tls = connector(wanted.check, wanted.roots.as_deref())?;
        Ok(Self { config, tls }.by_its_way())
    }
}

/// As the driver's own settings say, with no look at the certificate.
impl From<Config> for Server {
    fn from(config: Config) -> Self {
        Self { config, tls: MakeRustlsConnect::new(unchecked()) }.by_its_way()
    }
}

impl From<&Config> for Server {
    fn from(config: &Config) -> Self {
        Self::from(config.clone())
    }
}

impl From<&Self> for Server {
    fn from(server: &Self) -> Self {
        server.clone()
    }
}

impl Server {
    /// The same server, where connections are named so in `pg_stat_activity`.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.config.application_name(name);
        self
    }

    /// Nobody listens in on a socket of this machine, and Postgres has no TLS there.
    fn by_its_way(mut self) -> Self {
        if self.config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            self.config.ssl_mode(SslMode::Disable);
        }
        self
    }
}

/// What the url says nothing of.
fn give_up_in_time(config: &mut Config, url: &str) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_WITHIN);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENT_FOR);
    }
    // The driver does not tell its own two hours from those of a url.
    if !url.contains("keepalives_idle=") {
        config.keepalives_idle(SILENT_FOR);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(ASKED_EVERY);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(ASKED_TIMES);
    }
}

/// A url without what only this module understands, and what that is; nothing where it says nothing of TLS.
fn read(url: &str) -> Result<(String, Option<Wanted>), AddressError> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let (mut mode, mut roots, mut others) = (None, None, Vec::new());
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => roots = Some(percent_decode_str(value).decode_utf8_lossy()),
            _ => others.push(parameter),
        }
    }
    if mode.is_none() && roots.is_none() {
        return Ok((url.to_owned(), None));
    }
    let known = if roots.is_some() { Check::Authority } else { Check::Nothing };
    let (mode, check) = match mode {
        Some("disable") => (SslMode::Disable, Check::Nothing),
        None | Some("prefer") => (SslMode::Prefer, known),
        Some("require") => (SslMode::Require, known),
        Some("verify-ca") => (SslMode::Require, Check::Authority),
        Some("verify-full") => (SslMode::Require, Check::AuthorityAndName),
        Some(_) => return Err(AddressError::Mode),
    };
    let roots = roots.filter(|roots| roots != "system").map(|roots| PathBuf::from(roots.into_owned()));
    let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    Ok((url, Some(Wanted { mode, check, roots })))
}

fn connector(check: Check, roots: Option<&Path>) -> Result<MakeRustlsConnect, AddressError> {
    if check == Check::Nothing {
        return Ok(MakeRustlsConnect::new(unchecked()));
    }
    let authorities = authorities(roots)?;
    if check == Check::AuthorityAndName {
        let config = builder().with_root_certificates(authorities).with_no_client_auth();
        return Ok(MakeRustlsConnect::new(config));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider())
        .build()
        .map_err(|_| AddressError::NoRoots)?;
    Ok(MakeRustlsConnect::new(dangerous(Some(verifier))))
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, AddressError> {
    let mut authorities = RootCertStore::empty();
    let Some(path) = file else {
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if authorities.is_empty() { Err(AddressError::NoRoots) } else { Ok(authorities) };
    };
    let wrong = |error: String| AddressError::Roots { path: path.to_owned(), error };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        authorities.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if authorities.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(authorities)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions of TLS that rustls has")
}

fn dangerous(authority: Option<Arc<WebPkiServerVerifier>>) -> ClientConfig {
    let verifier = Arc::new(AnyName { authority, provider: provider() });
    builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

fn unchecked() -> ClientConfig {
    dangerous(None)
}

/// Whoever sends it has the certificate's key. With an authority it vouches for the certificate, whatever name that is
/// for; without one any will do: what is said cannot be overheard, but nobody knows to whom it is said.
#[derive(Debug)]
struct AnyName {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        // The name is looked at last.
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(url: &str) -> (String, SslMode, Check, Option<PathBuf>) {
        let (url, wanted) = read(url).expect("a url");
        let Wanted { mode, check, roots } = wanted.expect("a word of TLS");
        (url, mode, check, roots)
    }

    #[test]
    fn what_is_said_of_tls_is_read_as_libpq_reads_it() {
        let url = "postgres://me:secret@db.example.com:6432,other/songs";
        let roots = || Some(PathBuf::from("/etc/our ca.pem"));
        for (query, mode, check, file) in [
            ("?sslmode=disable", SslMode::Disable, Check::Nothing, None),
            ("?sslmode=prefer", SslMode::Prefer, Check::Nothing, None),
            ("?sslmode=require", SslMode::Require, Check::Nothing, None),
            ("?sslmode=require&sslrootcert=/etc/our%20ca.pem", SslMode::Require, Check::Authority, roots()),
            ("?sslrootcert=/etc/our%20ca.pem", SslMode::Prefer, Check::Authority, roots()),
            ("?sslmode=verify-ca", SslMode::Require, Check::Authority, None),
            ("?sslmode=verify-full&sslrootcert=system", SslMode::Require, Check::AuthorityAndName, None),
        ] {
            assert_eq!(wanted(&format!("{url}{query}")), (url.to_owned(), mode, check, file), "{query}");
        }
        let others = wanted(&format!("{url}?connect_timeout=3&sslmode=require&options=-c%20x%3D1")).0;
        assert_eq!(others, format!("{url}?connect_timeout=3&options=-c%20x%3D1"));
        assert_eq!(read(url).expect("a url").1, None);
    }

    #[test]
    fn what_cannot_be_used_is_named_without_the_password() {
        let error = |query: &str| {
            let server = format!("postgres://me:secret@db.example.com/songs{query}").parse::<Server>();
            server.map(drop).expect_err("an error").to_string()
        };
        assert!(error("?sslmode=sometimes").contains("verify-full"));
        let missing = error("?sslmode=verify-full&sslrootcert=/no/such/file.pem");
        assert!(missing.contains("/no/such/file.pem") && !missing.contains("secret"), "{missing}");
        assert!(error("?sslmode=verify-ca&sslrootcert=/dev/null").contains("no certificate"));
        assert!("host".parse::<Server>().is_err());
    }

    #[test]
    fn a_server_that_vanishes_is_given_up_soon_unless_its_url_says_otherwise() {
        let limits = |url: &str| {
            let config = url.parse::<Server>().expect("a url").config;
            [
                config.get_connect_timeout().copied(),
                config.get_tcp_user_timeout().copied(),
                Some(config.get_keepalives_idle()),
                config.get_keepalives_interval(),
            ]
            .map(|limit| limit.map(|limit| limit.as_secs()))
        };
        assert_eq!(limits("postgres://db/songs?sslmode=require"), [5, 10, 10, 5].map(Some));
        assert_eq!(limits("host=db keepalives_idle=7200"), [5, 10, 7200, 5].map(Some));
        let all = "connect_timeout=1&tcp_user_timeout=60&keepalives_idle=30&keepalives_interval=9";
        assert_eq!(limits(&format!("postgres://db/songs?{all}")), [1, 60, 30, 9].map(Some));
    }

    #[test]
    fn a_socket_of_this_machine_needs_no_tls() {
        let mode = |url: &str| url.parse::<Server>().expect("a url").config.get_ssl_mode();
        assert_eq!(mode("postgres:///songs?host=/run/postgresql&sslmode=require"), SslMode::Disable);
        assert_eq!(mode("postgres://localhost/songs"), SslMode::Prefer);
    }
}
