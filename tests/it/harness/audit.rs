//! What must hold in the database whatever happened: the same questions as `songflight doctor --audit` asks.

use std::time::Duration;

use songflight::store::audit::{Scope, audit as ask};
use songflight::store::stuck::Patience;
use tokio_postgres::Client;

/// # Panics
/// When a rule is broken, with the rows that break it.
pub async fn audit(client: Client, user: Option<&str>) {
    let seconds = Duration::from_secs;
    let patience = Patience { slack: seconds(10), deadline: seconds(600), max_wait: seconds(3600) };
    let scope = Scope { user, patience, examples: 20 };
    let findings = ask(&client, &scope).await.expect("the audit can be asked");
    let told: Vec<String> =
        findings.iter().map(|broken| format!("{}: {}", broken.rule, broken.examples.join("\n  "))).collect();
    assert!(told.is_empty(), "broken: {}", told.join("\n"));
}
