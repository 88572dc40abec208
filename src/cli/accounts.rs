//! `songflight credits` and `songflight plan`: what operators do about a user's account, beside the running service.

use deadpool_postgres::Client;

use super::terminal::{self, Style};
use super::{CreditsCommand, Failure, PlanCommand};
use crate::api::guests;
use crate::app::Database;
use crate::config::Config;
use crate::credit::Credits;
use crate::credit::plan::Plan;
use crate::id::{self, UserId};
use crate::store::accounts::{self, Grant, Granted, LedgerEntry};
use crate::store::{self, StoreError, ledger};
use crate::time::Clock;

/// Who stands in the ledger as the giver.
const OPERATOR: &str = "command line";

pub(super) fn credits(config: &Config, command: CreditsCommand) -> Result<(), Failure> {
    with_database(config, async |client| match command {
        CreditsCommand::Show { user, limit } => show(client, &user, limit).await,
        CreditsCommand::Grant { user, amount, note, key } => {
            let key = key.unwrap_or_else(|| id::fresh().to_string());
            let start = start_of(config, &user);
            let grant = Grant { user: &user, amount, note: note.as_deref(), by: OPERATOR, key: &key, start };
            give(client, &grant).await
        }
        CreditsCommand::Check => check(client).await,
    })
}

pub(super) fn plan(config: &Config, command: PlanCommand) -> Result<(), Failure> {
    let PlanCommand::Set { user, plan } = command;
    with_database(config, async |client| set(client, config, &user, plan).await)
}

async fn set(client: &Client, config: &Config, user: &UserId, plan: Plan) -> Result<(), Failure> {
    let start = start_of(config, user);
    let new = is_new(client, user).await?;
    accounts::set_plan(client, user, plan, start).await.map_err(failed)?;
    terminal::line(Style::Green, format!("{user} has the plan {}.", plan.as_str()))?;
    if new {
        say_it_is_new(user, start)?;
    }
    Ok(())
}

/// A user is first seen with a first song, or here: then maybe the name is misspelt.
async fn is_new(client: &Client, user: &UserId) -> Result<bool, Failure> {
    let known = accounts::account(client, user, Clock.now(), false).await.map_err(failed)?;
    Ok(known.is_none())
}

fn say_it_is_new(user: &UserId, start: Credits) -> Result<(), Failure> {
    let text = format!("{user} was not known before: the account is new, and began with {start} credits.");
    Ok(terminal::line(Style::Yellow, text)?)
}

/// Connects to the database of the service, which may be running, and brings its schema up to date.
pub(super) fn with_database(
    config: &Config,
    work: impl AsyncFnOnce(&Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    super::serve::start_log(config);
    actix_web::rt::System::new().block_on(async {
        let database = Database::open_or_join(config, |_| {}).await.map_err(failed)?;
        let done = async {
            store::migrate(&database.postgres).await.map_err(Failure::Failed)?;
            let pool = store::pool(&database.postgres, 1).map_err(Failure::Failed)?;
            let client = pool.get().await.map_err(failed)?;
            work(&client).await
        };
        let done = done.await;
        if let Some(private) = database.private {
            private.stop().await;
        }
        done
    })
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn start_of(config: &Config, user: &UserId) -> Credits {
    let guest = user.as_str().starts_with(guests::PREFIX);
    if guest { config.credits.guest_grant } else { config.credits.signup_grant }
}

async fn show(client: &Client, user: &UserId, limit: i64) -> Result<(), Failure> {
    let found = async {
        let account = accounts::account(client, user, Clock.now(), false).await?;
        Ok::<_, StoreError>((account, accounts::entries(client, user, None, limit).await?))
    };
    let (account, entries) = found.await.map_err(failed)?;
    let Some(account) = account else {
        return Err(Failure::Failed(format!("there is no user {user}")));
    };
    let (credits, plan) = (account.credits, account.plan.as_str());
    terminal::line(Style::Bold, format!("{user} has {credits} credits, plan {plan}"))?;
    for entry in &entries {
        terminal::line(Style::Plain, line(entry))?;
    }
    Ok(())
}

fn line(entry: &LedgerEntry) -> String {
    let about = entry.task.as_deref().or(entry.note.as_deref()).unwrap_or_default();
    let song = entry.song.map(|song| song.to_string()).unwrap_or_default();
    let (at, amount, balance) = (entry.at.rfc3339(), entry.amount.to_string(), entry.balance.to_string());
    format!("{at}  {amount:>10}  {:<8} {balance:>10}  {about} {song}", entry.reason).trim_end().to_owned()
}

async fn give(client: &Client, grant: &Grant<'_>) -> Result<(), Failure> {
    let (user, amount) = (grant.user, grant.amount);
    let new = is_new(client, user).await?;
    match accounts::grant(client, grant).await.map_err(failed)? {
        Granted::Done { balance } => {
            terminal::line(Style::Green, format!("{user}: {amount} credits, which makes {balance}."))?;
            if new {
                say_it_is_new(user, grant.start)?;
            }
        }
        Granted::Replay { balance } => {
            terminal::line(Style::Yellow, format!("This was done before; {user} has {balance} credits."))?;
        }
        Granted::KeyMismatch => {
            return Err(Failure::Failed(format!("the key {} came with another amount before", grant.key)));
        }
        Granted::Short { available } => {
            return Err(Failure::Failed(format!("{user} has only {available} credits")));
        }
    }
    Ok(())
}

async fn check(client: &Client) -> Result<(), Failure> {
    // All of the ledger: longer than what pages are given.
    client.batch_execute("set statement_timeout = 0").await.map_err(failed)?;
    let books = ledger::books(&***client).await.map_err(failed)?;
    let text = serde_json::to_string_pretty(&books.as_json()).map_err(failed)?;
    terminal::line(Style::Plain, text)?;
    if books.are_right() { Ok(()) } else { Err(Failure::Failed("the books are not right".to_owned())) }
}
