//! The command line: what can be asked for, and what each command does in a few lines. Whatever takes
//! more stands in a module of its own.

mod accounts;
mod audit;
mod dead_letters;
mod doctor;
mod serve;
pub mod terminal;
pub mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::auth::{self, Auth, Role};
use crate::config::{Config, ConfigError, Loaded, describe, duration};
use crate::credit::Credits;
use crate::credit::plan::Plan;
use crate::id::UserId;
use crate::store::letters;
use crate::time::Clock;
use terminal::Style;

/// The backend for apps that make songs with AI.
#[derive(Debug, Parser)]
#[command(name = "songflight", version)]
pub struct Cli {
    /// The configuration file [default: songflight.toml, if it is there]
    #[arg(long, global = true, env = "SONGFLIGHT_CONFIG", value_name = "PATH")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service (what happens without a command)
    Serve,
    /// Bring the database up to date and end
    Migrate,
    /// Imitate all four providers, for trying and testing
    Simulator(SimulatorArgs),
    /// Print a token for development
    Token(TokenArgs),
    /// Print the effective configuration and where each value came from
    Config,
    /// Check database, providers, storage and clock, and say what to do
    Doctor(DoctorArgs),
    /// List what could not be done, look at it, put it back to work, close it
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Look at a user's credits, give or take some, check the books
    #[command(subcommand)]
    Credits(CreditsCommand),
    /// Set a user's plan
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Follow a song, or all songs of a user, in the terminal
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at every song and every credit instead: what must always hold, and what breaks it
    #[arg(long)]
    pub audit: bool,
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// What waits for somebody, the newest first
    List {
        /// Letters of this kind only
        #[arg(long, value_parser = PossibleValuesParser::new(letters::NAMES))]
        kind: Option<String>,
        /// Those that were resolved, too
        #[arg(long)]
        all: bool,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// One of them with its whole context and the provider's raw callbacks, as JSON
    Show {
        /// Its number
        id: i64,
    },
    /// Put it back to work; the service must be running
    Replay {
        /// Its number
        id: i64,
        /// Where the service is [default: the one that runs in this folder, else the configured address]
        #[arg(long)]
        url: Option<String>,
    },
    /// Close it
    Resolve {
        /// Its number
        id: i64,
        /// What was found and done
        #[arg(long)]
        notes: String,
    },
}

#[derive(Debug, Args)]
pub struct SimulatorArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS:PORT")]
    pub bind: SocketAddr,

    /// Sign callbacks with it
    #[arg(long, value_name = "SECRET")]
    pub webhook_secret: Option<String>,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Whom the token is for
    #[arg(long, value_parser = user)]
    pub user: UserId,
    /// The plan it names: free, pro or premium [default: the profile's]
    #[arg(long, value_parser = plan)]
    pub plan: Option<Plan>,
    /// What its bearer may do
    #[arg(long, value_enum, default_value = "authenticated")]
    pub role: RoleArg,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_parser = ttl)]
    pub ttl: Duration,
}

#[derive(Debug, Subcommand)]
pub enum CreditsCommand {
    /// Print a user's balance and newest entries
    Show {
        /// Whose
        #[arg(long, value_parser = user)]
        user: UserId,
        /// How many entries
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// Give credits, or take them with a negative amount; never below zero
    Grant {
        /// To whom
        #[arg(long, value_parser = user)]
        user: UserId,
        /// Credits with at most three decimals
        #[arg(long, value_parser = amount, allow_hyphen_values = true)]
        amount: Credits,
        /// Why; stands in the ledger
        #[arg(long)]
        note: Option<String>,
        /// Makes a repetition harmless: the same key gives once [default: a new one]
        #[arg(long)]
        key: Option<String>,
    },
    /// Check that every balance is the sum of its entries and every task settled
    Check,
}

#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Set what counts where a token names no plan
    Set {
        /// Whose
        #[arg(long, value_parser = user)]
        user: UserId,
        /// free, pro or premium
        #[arg(long, value_parser = plan)]
        plan: Plan,
    },
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Where the service is [default: the one that runs in this folder, else the configured address]
    #[arg(long)]
    pub url: Option<String>,
    /// The token to use [without --user, also from the variable SONGFLIGHT_TOKEN]
    #[arg(long, conflicts_with = "user")]
    pub token: Option<String>,
    /// Make a token for this user with the key of this machine
    #[arg(long, value_parser = user)]
    pub user: Option<UserId>,
    /// Print every event as it comes, as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// The song to follow [default: all songs of the user]
    pub song_id: Option<crate::id::SongId>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleArg {
    Authenticated,
    Service,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Authenticated => Role::Authenticated,
            RoleArg::Service => Role::Service,
        }
    }
}

/// Why a command ends without having done its work. The message is for the person who ran it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 2, as for a wrong argument.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 1: the log says why.
    #[error("see the log")]
    Logged,
    /// Exit code 0: whoever reads our output has seen enough.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Failure {
    fn report(&self) -> ExitCode {
        match self {
            Failure::Config(error) => {
                terminal::note(Style::Red, format!("songflight: {error}"));
                ExitCode::from(2)
            }
            Failure::Failed(message) => {
                terminal::note(Style::Red, format!("songflight: {message}"));
                ExitCode::from(1)
            }
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Failure::Logged | Failure::Output(_) => ExitCode::from(1),
        }
    }
}

/// Does what the arguments ask for; the exit code is 0, 1 for a failure, 2 for a wrong use.
pub fn run(cli: Cli) -> ExitCode {
    // One TLS implementation for all clients; only the first call has an effect.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match perform(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn perform(cli: Cli) -> Result<(), Failure> {
    // An empty variable counts as not set, as everywhere.
    let path = cli.config.as_deref().filter(|path| !path.as_os_str().is_empty());
    let loaded = Config::load(path)?;
    match cli.command.unwrap_or(Command::Serve) {
        Command::Config => print_config(&loaded),
        Command::Token(args) => print_token(&loaded.config, args),
        Command::Serve => serve::serve(&loaded),
        Command::Migrate => serve::migrate(&loaded.config),
        Command::Simulator(args) => serve::simulator(&loaded.config, args),
        Command::Doctor(args) if args.audit => audit::audit(&loaded.config),
        Command::Doctor(_) => doctor::doctor(&loaded),
        Command::DeadLetters(command) => dead_letters::dead_letters(&loaded.config, command),
        Command::Credits(command) => accounts::credits(&loaded.config, command),
        Command::Plan(command) => accounts::plan(&loaded.config, command),
        Command::Watch(args) => watch::command(&loaded.config, args),
    }
}

/// What somebody set stands out from the defaults.
fn print_config(loaded: &Loaded) -> Result<(), Failure> {
    for line in describe(loaded).lines() {
        let style = if line.ends_with("# default") { Style::Dim } else { Style::Plain };
        terminal::line(style, line)?;
    }
    Ok(())
}

/// Only the token goes to stdout, so that a shell can take it: `TOKEN=$(songflight token --user alice)`.
fn print_token(config: &Config, args: TokenArgs) -> Result<(), Failure> {
    let key = auth::own_key(&config.auth, config.local_dir())
        .map_err(|error| Failure::Failed(format!("the signing key cannot be had: {error}")))?;
    let auth = Auth::new(&config.auth, &key, reqwest::Client::new());
    let token = auth.issue(&args.user, args.plan.map(Plan::as_str), args.role.into(), args.ttl, Clock.now());
    terminal::line(Style::Plain, &token)?;
    if terminal::is_watched() {
        let hint = format!("\nValid for {}. Use it as  Authorization: Bearer …", duration::write(args.ttl));
        terminal::note(Style::Dim, hint);
    }
    Ok(())
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).ok_or_else(|| "1 to 128 characters, no control characters".into())
}

fn amount(text: &str) -> Result<Credits, String> {
    match Credits::signed(text) {
        Ok(Credits::ZERO) => Err("must not be 0: nothing would be given".into()),
        Ok(amount) => Ok(amount),
        Err(allowed) => Err(format!("must be {allowed}, or less than 0")),
    }
}

fn plan(text: &str) -> Result<Plan, String> {
    Plan::parse(text).filter(|plan| *plan != Plan::Guest).ok_or_else(|| "must be free, pro or premium".into())
}

fn ttl(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Some(Duration::ZERO) => Err("must be more than 0".into()),
        Some(ttl) => Ok(ttl),
        None => Err(format!("must be {}", duration::ALLOWED)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_is_what_happens_without_a_command() {
        let cli = Cli::try_parse_from(["songflight", "--config", "x.toml"]).expect("arguments");
        assert!(cli.command.is_none());
        assert_eq!(cli.config, Some("x.toml".into()));
    }

    #[test]
    fn credits_may_be_taken_and_are_exact() {
        let parse = |amount: &str| {
            let arguments = ["songflight", "credits", "grant", "--user", "a", "--amount", amount];
            Cli::try_parse_from(arguments)
        };
        for good in ["5", "-5", "0.001", "-1.5"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "-", "--5", "0.0001", "1e3", "0", "-0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(Cli::try_parse_from(["songflight", "plan", "set", "--user", "a", "--plan", "gold"]).is_err());
    }

    #[test]
    fn letters_are_asked_for_by_any_of_their_kinds_and_no_other() {
        let parse = |kind: &str| Cli::try_parse_from(["songflight", "dead-letters", "list", "--kind", kind]);
        assert!(letters::NAMES.contains(&"claim"));
        for kind in letters::NAMES {
            assert!(parse(kind).is_ok(), "{kind}");
        }
        let why = parse("lost").expect_err("no kind").to_string();
        assert!(letters::NAMES.iter().all(|kind| why.contains(kind)), "{why}");
    }

    #[test]
    fn a_token_needs_a_user_and_a_ttl_that_is_one() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["songflight", "token"], arguments].concat());
        assert!(parse(&["--user", "alice", "--plan", "pro", "--role", "service", "--ttl", "5m"]).is_ok());
        for wrong in [
            &[][..],
            &["--user", ""],
            &["--user", "a", "--ttl", "1"],
            &["--user", "a", "--role", "x"],
            &["--user", "a", "--plan", "guest"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let why = |arguments: &[&str]| parse(arguments).expect_err("wrong").to_string();
        assert!(why(&["--user", "a", "--ttl", "0s"]).contains("must be more than 0"));
        assert!(why(&["--user", "a", "--plan", "gold"]).contains("must be free, pro or premium"));
    }
}
