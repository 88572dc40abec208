//! The commands that run until they are told to stop: the service, the simulator; and the schema's.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::terminal::{self, Style};
use super::{Failure, SimulatorArgs};
use crate::app::{self, Database, Running};
use crate::config::{Config, Loaded, LogFormat};
use crate::{simulator, store};

/// How a program that runs for long speaks of itself: to people in words, to a log collector in its lines alone.
#[derive(Clone, Copy)]
enum Voice {
    Words,
    Lines,
}

impl Voice {
    fn of(config: &Config) -> Self {
        match config.log.format {
            LogFormat::Text => Voice::Words,
            LogFormat::Json => Voice::Lines,
        }
    }

    /// What goes on.
    fn note(self, style: Style, text: &str) {
        match self {
            Voice::Words => terminal::note(style, text),
            Voice::Lines => tracing::info!("{}", text.trim()),
        }
    }

    /// Why it ends: where nobody reads words, the log says it.
    fn end(self, failure: Failure) -> Failure {
        match (self, failure) {
            (Voice::Lines, Failure::Failed(message)) => {
                tracing::error!("{message}");
                Failure::Logged
            }
            (_, failure) => failure,
        }
    }
}

/// Runs the service until Ctrl-C or SIGTERM.
pub(super) fn serve(loaded: &Loaded) -> Result<(), Failure> {
    start_log(&loaded.config);
    let voice = Voice::of(&loaded.config);
    let served = actix_web::rt::System::new().block_on(async {
        let progress = |step: &str| voice.note(Style::Dim, &format!("  {step}"));
        let mut running = app::start(loaded, progress).await.map_err(failed)?;
        let taken = taken(&loaded.config, running.address);
        match voice {
            Voice::Words => welcome(&running, taken)?,
            Voice::Lines => log_start(&running, taken),
        }
        let why = tokio::select! {
            why = told_to_stop() => Ok(why?),
            why = running.fallen() => Err(Failure::Failed(why)),
        };
        if why.is_ok() {
            voice.note(Style::Dim, "\n  stopping: songs under way go on at the next start …");
        }
        tokio::select! {
            () = running.stop() => {}
            // Whoever asks twice does not want to wait.
            _ = told_to_stop() => voice.note(Style::Yellow, "  stopped at once"),
        }
        why.map(drop)
    });
    served.map_err(|failure| voice.end(failure))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// The port that was wanted, where it was not to be had.
fn taken(config: &Config, address: SocketAddr) -> Option<u16> {
    let wanted = config.http.bind.parse::<SocketAddr>().ok()?.port();
    Some(wanted).filter(|port| ![0, address.port()].contains(port))
}

fn welcome(running: &Running, taken: Option<u16>) -> Result<(), Failure> {
    let address = running.address;
    terminal::line(Style::Bold, format!("\n  Songflight is up at http://{address}"))?;
    if let Some(port) = taken {
        terminal::line(
            Style::Yellow,
            format!("  port {port} is taken by another program, so it listens at {}", address.port()),
        )?;
    }
    let Some(trial) = &running.trial else { return Ok(()) };
    let database = if trial.private_database { "its own Postgres in .songflight" } else { "your Postgres" };
    let providers = if trial.simulated { "a simulated provider" } else { "your providers" };
    terminal::line(
        Style::Dim,
        format!("  development, with {database} and {providers}; Ctrl-C stops it all"),
    )?;
    terminal::line(Style::Plain, "\n  Make a first song:\n")?;
    for line in trial.first_song(address).lines() {
        terminal::line(Style::Cyan, format!("    {line}"))?;
    }
    terminal::line(Style::Plain, "\n  Watch it live, in another terminal:\n")?;
    let program = std::env::args().next().unwrap_or_else(|| "songflight".to_owned());
    terminal::line(Style::Cyan, format!("    {program} watch --user {} --url http://{address}", trial.user))?;
    terminal::line(Style::Plain, format!("\n  The API: http://{address}/docs\n"))?;
    Ok(())
}

/// The welcome for a log collector: where it is, and no token.
fn log_start(running: &Running, taken: Option<u16>) {
    let address = running.address;
    if let Some(port) = taken {
        tracing::warn!(port, "another program has the port that was wanted, so the next free one is taken");
    }
    tracing::info!(url = format!("http://{address}"), "Songflight is up");
}

async fn told_to_stop() -> Result<(), Failure> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Brings the schema up to date and says what was done.
pub(super) fn migrate(config: &Config) -> Result<(), Failure> {
    start_log(config);
    let voice = Voice::of(config);
    actix_web::rt::System::new().block_on(async {
        let progress = |step: &str| voice.note(Style::Dim, &format!("  {step}"));
        let database = Database::open_or_join(config, progress).await.map_err(failed)?;
        let applied = store::migrate(&database.postgres).await.map_err(failed);
        if let Some(private) = database.private {
            private.stop().await;
        }
        match applied? {
            0 => terminal::line(Style::Green, "The schema is up to date.")?,
            n => terminal::line(Style::Green, format!("The schema is up to date: {n} migrations applied."))?,
        }
        Ok(())
    })
}

/// Runs the simulator alone.
pub(super) fn simulator(config: &Config, args: SimulatorArgs) -> Result<(), Failure> {
    start_log(config);
    let voice = Voice::of(config);
    let ran = actix_web::rt::System::new().block_on(async {
        let SimulatorArgs { bind, webhook_secret } = args;
        let options = simulator::Options { webhook_secret, ..simulator::Options::default() };
        let listener =
            TcpListener::bind(bind).map_err(|error| Failure::Failed(format!("--bind {bind}: {error}")))?;
        let simulator = simulator::start(listener, options).map_err(failed)?;
        let address = simulator.address();
        match voice {
            Voice::Words => introduce(address)?,
            Voice::Lines => tracing::info!(url = format!("http://{address}"), "The simulator is up"),
        }
        told_to_stop().await?;
        // Callbacks that wait for their time are not worth a delay.
        let _ = tokio::time::timeout(Duration::from_secs(3), simulator.stop()).await;
        Ok(())
    });
    ran.map_err(|failure| voice.end(failure))
}

fn introduce(address: SocketAddr) -> Result<(), Failure> {
    terminal::line(Style::Bold, format!("\n  The simulator is up at http://{address}"))?;
    terminal::line(Style::Dim, "  what it does, and how to steer it, stands there; Ctrl-C stops it\n")?;
    terminal::line(Style::Plain, "  Songflight uses it with\n")?;
    let call = format!("    SONGFLIGHT_PROVIDERS__SUNO__BASE_URL=http://{address}/suno songflight serve\n");
    Ok(terminal::line(Style::Cyan, call)?)
}

/// What libraries say of their own starting is noise, and what somebody sends that is no HTTP is no error of ours, as
/// which it would be told. Whoever asks for it by name gets it.
const QUIET: &str = "actix_server=warn,refinery_core=warn,tokio_postgres=warn,actix_http=off";

/// Logs go to stderr; stdout is for what a command prints.
pub(super) fn start_log(config: &Config) {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log.filter));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process is refused; the first one serves.
    let _ = match config.log.format {
        LogFormat::Text => log.with_ansi(terminal::is_watched()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    note_faults(config.log.format);
}

/// A panic is a fault of ours wherever it happens, and counted; who lives on after it is the matter of what stumbled.
fn note_faults(format: LogFormat) {
    let in_words = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        metrics::counter!("songflight_panics_total").increment(1);
        match format {
            LogFormat::Text => in_words(panic),
            LogFormat::Json => tracing::error!(%panic, "a fault in this program"),
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hook is the process's own from here on: what panics on purpose in other tests is told all the same.
    #[test]
    fn a_panic_is_counted_wherever_it_is_caught() {
        note_faults(LogFormat::Text);
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let caught = std::panic::catch_unwind(|| panic!("a fault that this test plants"));
            assert!(caught.is_err());
        });
        let figures = recorder.handle().render();
        assert!(figures.contains("songflight_panics_total 1"), "{figures}");
    }
}
