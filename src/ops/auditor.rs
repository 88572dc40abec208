//! Looks now and then at all that must always hold (`store::audit`), as long as the service runs: what is broken is a
//! figure for an alarm, and stands in the log with examples (`durability.md` section 6).
//!
//! Not here: the rules (`store::audit`); asking by hand (`songflight doctor --audit`).

use std::time::Duration;

use metrics::{gauge, histogram};

use crate::store::audit::{self, Finding, Scope};
use crate::store::server::Server;
use crate::store::stuck::Patience;
use crate::store::{AUDIT, StoreError, connect};
use crate::time::Clock;

/// Of each finding, in the log.
const EXAMPLES: i64 = 3;
/// All of every table is read, beside everything else.
const ASKING: &str = "set statement_timeout = '10min'; set lock_timeout = '2s'";
/// One node at a time.
const ALONE: &str = "select pg_try_advisory_lock(5470602)";

/// Looks every so often, for ever.
pub async fn keep_auditing(server: Server, every: Duration, patience: Patience) {
    loop {
        tokio::time::sleep(every).await;
        let begun = Clock.monotonic();
        match look(&server, patience).await {
            Ok(None) => {}
            Ok(Some(findings)) => tell(&findings, Clock.since(begun)),
            Err(error) => tracing::warn!(%error, "could not look whether all rules hold"),
        }
    }
}

/// What is broken; `None` while another node looks.
async fn look(server: &Server, patience: Patience) -> Result<Option<Vec<Finding>>, StoreError> {
    // A connection of its own: it takes longer than pages may.
    let client = connect(server, AUDIT).await?;
    client.batch_execute(ASKING).await?;
    if !client.query_one(ALONE, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    audit::audit(&client, &Scope { user: None, patience, examples: EXAMPLES }).await.map(Some)
}

fn tell(findings: &[Finding], took: Duration) {
    gauge!("songflight_broken_rules").set(findings.len() as f64);
    histogram!("songflight_audit_seconds").record(took.as_secs_f64());
    for Finding { rule, many, examples } in findings {
        tracing::error!(rule, many, ?examples, "a rule is broken that must always hold; please report this");
    }
}
