//! Holds the database against the rules of `ops::audit`.

use songflight::ops::audit::broken;
use tokio_postgres::Client;

/// # Panics
/// When a rule is broken, with the rows that break it.
pub async fn audit(mut client: Client, user: Option<&str>) {
    let broken = broken(&mut client, user).await.expect("the rules can be read");
    let told: Vec<String> =
        broken.iter().map(|broken| format!("{}\n  {}", broken.rule, broken.rows.join("\n  "))).collect();
    assert!(told.is_empty(), "broken: {}", told.join("\n"));
}
