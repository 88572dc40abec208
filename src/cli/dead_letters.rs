//! `songflight dead-letters`: what operators do about what could not be done (OPS-1), beside the running service.
//! Only putting one back to work is asked of the service itself, which owns the songs.

use std::time::Duration;

use serde_json::{Value, json};

use super::accounts::{failed, with_database};
use super::terminal::{self, Style};
use super::{DeadLettersCommand, Failure};
use crate::app;
use crate::auth::{self, Auth, Role};
use crate::config::Config;
use crate::id::UserId;
use crate::store::insight;
use crate::store::letters::{self, Letter, Wanted};
use crate::time::Clock;

/// Who is noted as having closed a letter.
const OPERATOR: &str = "command line";
const TOKEN_TTL: Duration = Duration::from_secs(60);
/// The database may take as long as a song waits for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub(super) fn dead_letters(config: &Config, command: DeadLettersCommand) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List { kind, all, limit } => with_database(config, async |client| {
            let resolved = (!all).then_some(false);
            let wanted = Wanted { kind: kind.as_deref(), resolved, before: None, limit };
            list(&letters::list(client, &wanted).await.map_err(failed)?)
        }),
        DeadLettersCommand::Show { id } => with_database(config, async |client| {
            let letter = letters::find(client, id).await.map_err(failed)?.ok_or_else(|| none(id))?;
            let mut shown = letter.as_json();
            shown["context"] = letter.context;
            shown["callbacks"] = match letter.task {
                Some(task) => insight::callbacks_of(client, task).await.map_err(failed)?,
                None => json!([]),
            };
            let text = serde_json::to_string_pretty(&shown).map_err(failed)?;
            Ok(terminal::line(Style::Plain, text)?)
        }),
        DeadLettersCommand::Resolve { id, notes } => with_database(config, async |client| {
            match letters::resolve(client, id, OPERATOR, Some(&notes)).await.map_err(failed)? {
                true => Ok(terminal::line(Style::Green, format!("Dead letter {id} is resolved."))?),
                false => Err(none(id)),
            }
        }),
        DeadLettersCommand::Replay { id, url } => {
            let url = url.unwrap_or_else(|| app::service_url(config));
            super::serve::start_log(config);
            let done = actix_web::rt::System::new().block_on(replay(config, &url, id))?;
            Ok(terminal::line(Style::Green, format!("Dead letter {id}: {done}."))?)
        }
    }
}

fn none(id: i64) -> Failure {
    Failure::Failed(format!("there is no dead letter {id}"))
}

fn list(letters: &[Letter]) -> Result<(), Failure> {
    if letters.is_empty() {
        return Ok(terminal::line(Style::Green, "No dead letters.")?);
    }
    for letter in letters {
        let style = if letter.resolved_at.is_some() { Style::Dim } else { Style::Plain };
        terminal::line(style, line(letter))?;
    }
    Ok(())
}

fn line(letter: &Letter) -> String {
    let Letter { id, kind, error, times, .. } = letter;
    let song = letter.song.map(|song| song.to_string()).unwrap_or_default();
    let again = if *times > 1 { format!(" ({times} times)") } else { String::new() };
    let end = match &letter.notes {
        Some(notes) => format!("  → {notes}"),
        None => String::new(),
    };
    format!("{id:>6}  {}  {kind:<9} {song:<36}  {error}{again}{end}", letter.last_at.rfc3339())
}

async fn replay(config: &Config, url: &str, id: i64) -> Result<String, Failure> {
    let key = auth::own_key(&config.auth, config.local_dir())
        .map_err(|error| Failure::Failed(format!("the signing key cannot be had: {error}")))?;
    let auth = Auth::new(&config.auth, &key, reqwest::Client::new());
    let token = auth.issue(&UserId::trusted(OPERATOR), None, Role::Service, TOKEN_TTL, Clock.now());
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().map_err(failed)?;
    let url = format!("{}/admin/dead-letters/{id}/replay", url.trim_end_matches('/'));
    let sent = client.post(&url).bearer_auth(token).send().await;
    let answer = sent.map_err(|error| Failure::Failed(format!("the service does not answer: {error}")))?;
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    match body["done"].as_str() {
        Some(done) if status.is_success() => Ok(done.to_owned()),
        _ => {
            let detail = body["detail"].as_str().unwrap_or("no reason was given");
            Err(Failure::Failed(format!("{status}: {detail}")))
        }
    }
}
