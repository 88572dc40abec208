//! `songflight doctor --audit`: what must always hold in the database, and what breaks it, song by song.

use super::Failure;
use super::accounts::{failed, with_database};
use super::terminal::{self, Style};
use crate::config::Config;
use crate::store::audit::{self, Finding, RULES_ASKED, Scope};
use crate::store::stuck::Patience;

/// Examples of each finding.
const EXAMPLES: i64 = 5;

pub(super) fn audit(config: &Config) -> Result<(), Failure> {
    let patience = Patience {
        slack: config.ops.stuck_after,
        deadline: config.longest_deadline(),
        max_wait: config.tasks.max_wait,
    };
    with_database(config, async |client| {
        // All of every table: longer than what pages are given.
        client.batch_execute("set statement_timeout = 0").await.map_err(failed)?;
        let scope = Scope { user: None, patience, examples: EXAMPLES };
        let findings = audit::audit(&***client, &scope).await.map_err(failed)?;
        let count = "select (select count(*) from songs) as songs, (select count(*) from tasks) as tasks,
                            (select count(*) from credit_entries) as entries, (select count(*) from song_events) as events";
        let row = client.query_one(count, &[]).await.map_err(failed)?;
        let many = |name: &str| row.get::<_, i64>(name);
        print(&findings)?;
        let (songs, tasks) = (many("songs"), many("tasks"));
        let looked =
            format!("{songs} songs, {tasks} tasks, {} entries, {} events", many("entries"), many("events"));
        match findings.len() {
            0 => Ok(terminal::line(Style::Green, format!("  all {RULES_ASKED} rules hold for {looked}"))?),
            broken => {
                Err(Failure::Failed(format!("{broken} of {RULES_ASKED} rules are broken, among {looked}")))
            }
        }
    })
}

/// What, how many, examples with their ids.
fn print(findings: &[Finding]) -> Result<(), Failure> {
    for Finding { rule, many, examples } in findings {
        terminal::line(Style::Red, format!("  ✗ {many:>6}  not so: {rule}"))?;
        for example in examples {
            terminal::line(Style::Plain, format!("            {example}"))?;
        }
        let shown = i64::try_from(examples.len()).unwrap_or(i64::MAX);
        if *many > shown {
            terminal::line(Style::Dim, format!("            … and {} more", many - shown))?;
        }
    }
    Ok(())
}
