//! How much of what Postgres could write the journal makes use of: the same songs' lives, written by the journal for many
//! songs at once and by a [`bare`](super::bare) writer, in turns.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::Arbiter;
use clap::Args;
use futures_util::future::join_all;
use songflight::id::fresh;
use songflight::store::journal::{Committed, Entry, Journal, Settings};
use songflight::store::row::{NewSong, StepRow};
use songflight::store::{self, nodes};
use songflight::time::Clock;

use super::bare::{self, Bare};
use super::ground::{Counters, Ground, Spent};
use super::life::Life;
use super::median;
use crate::figures::Times;
use crate::{Failure, cannot};

#[derive(Clone, Debug, Args)]
pub struct Wanted {
    /// Songs under way at once
    #[arg(long, default_value_t = 500)]
    at_once: usize,
    /// Songs in each of the rounds
    #[arg(long, default_value_t = 8_192)]
    songs: usize,
    /// Rounds of each writer; medians are told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// People that the songs belong to
    #[arg(long, default_value_t = 250)]
    users: usize,
    /// The journal's writers; unless told, as many as a server has
    #[arg(long)]
    lanes: Option<usize>,
}

/// All that is written of one song, made before anything is measured.
struct Story {
    birth: NewSong,
    steps: Vec<StepRow>,
}

/// What a round came to.
struct Round {
    spent: Spent,
    /// From the wish to have a step written to its being durable.
    waits: Times,
}

/// A song's birth and its steps.
const ROWS: f64 = 1.0 + Life::ACTS as f64;
const ACTS: [&str; 1 + Life::ACTS] = ["births", "intents", "submissions", "first clips", "all clips"];
/// As many as one person has who is in a hurry.
const FEW: usize = 8;

/// Always true: it measures, it does not judge.
pub(super) async fn run(wanted: &Wanted) -> Result<bool, Failure> {
    let ground = Ground::prepare().await?;
    let measured = measure(&ground, wanted).await;
    ground.clear().await;
    measured.map(|()| true)
}

async fn measure(ground: &Ground, wanted: &Wanted) -> Result<(), Failure> {
    let database = ground.database("journal").await?;
    let counters = &ground.counters(&database).await?;
    let pool = store::pool(&database, 1).map_err(cannot("the database"))?;
    let client = pool.get().await.map_err(cannot("the database"))?;
    let node = nodes::enter(&client, fresh(), "bench", Duration::from_secs(3600)).await;
    let settings = Settings::default();
    let settings = Settings { lanes: wanted.lanes.unwrap_or(settings.lanes), ..settings };
    let (journal, writers) = Journal::new(&database, node.map_err(cannot("a node"))?, &settings, |_| {});
    for writer in writers {
        Arbiter::new().spawn(writer);
    }
    let bare =
        Rc::new(Bare::new(store::connect(&database, "bench").await.map_err(cannot("the database"))?).await?);

    println!(
        "\n  {} songs a round, each born and moved on {} times; {} at once, of {} people; fsync is on\n",
        wanted.songs,
        Life::ACTS,
        wanted.at_once,
        wanted.users
    );
    println!(
        "  {:<28} {:>9} {:>9} {:>10} {:>8} {:>9} {:>11} {:>10}",
        "", "songs/s", "rows/s", "commits", "syncs", "WAL", "CPU µs a row", "p50"
    );
    println!(
        "  {:<28} {:>9} {:>9} {:>10} {:>8} {:>9} {:>11} {:>10}",
        "", "", "", "a row", "a row", "a row", "Postgres", "ms"
    );
    let (mut journals, mut bares) = (Vec::new(), Vec::new());
    for _ in 0..wanted.rounds {
        let round = through_bare(counters, &bare, stories(wanted)).await?;
        show("bare writer, batches of 256", &round, wanted.songs);
        bares.push(rate(&round, wanted.songs));
        let round = through_journal(counters, &journal, stories(wanted), wanted.at_once).await?;
        show(&format!("journal, {} at once", wanted.at_once), &round, wanted.songs);
        journals.push(rate(&round, wanted.songs));
    }
    let few = Wanted { songs: wanted.songs / 8, ..wanted.clone() };
    let round = through_journal(counters, &journal, stories(&few), FEW).await?;
    show(&format!("journal, {FEW} at once"), &round, few.songs);
    by_act(counters, &journal, stories(&few)).await?;
    let (journals, bares) = (median(journals), median(bares));
    println!(
        "\n  medians: journal {journals:.0} songs/s, bare writer {bares:.0} songs/s: {:.0} %\n",
        100.0 * journals / bares
    );
    Ok(())
}

fn rate(round: &Round, songs: usize) -> f64 {
    songs as f64 / round.spent.took.as_secs_f64()
}

fn show(name: &str, round: &Round, songs: usize) {
    let (spent, rows) = (&round.spent, songs as f64 * ROWS);
    let p50 = round.waits.quantile_ms(0.5).map_or("–".to_owned(), |ms| format!("{ms:.2}"));
    println!(
        "  {name:<28} {:>9.0} {:>9.0} {:>10.4} {:>8.4} {:>9.0} {:>11.1} {p50:>10}",
        rate(round, songs),
        rows / spent.took.as_secs_f64(),
        spent.commits / rows,
        spent.syncs / rows,
        spent.wal_bytes / rows,
        spent.postgres_cpu.as_secs_f64() * 1e6 / rows,
    );
}

fn stories(wanted: &Wanted) -> Vec<Story> {
    let story = |number: usize| {
        let mut life = Life::new(&format!("user-{}", number % wanted.users.max(1)));
        let birth = life.birth();
        Story { birth, steps: (0..Life::ACTS).map(|act| life.next(act)).collect() }
    };
    (0..wanted.songs).map(story).collect()
}

/// So many songs at once; where one has ended the next is born.
async fn through_journal(
    counters: &Counters,
    journal: &Journal,
    stories: Vec<Story>,
    at_once: usize,
) -> Result<Round, Failure> {
    counters.checkpoint().await?;
    let waiting = Rc::new(RefCell::new(stories.into_iter()));
    let waits = Rc::new(RefCell::new(Times::default()));
    let before = counters.moment().await?;
    let began = Clock.monotonic();
    let songs = (0..at_once).map(|_| {
        let (journal, waiting, waits) = (journal.clone(), waiting.clone(), waits.clone());
        async move {
            loop {
                let Some(story) = waiting.borrow_mut().next() else { return Ok(()) };
                let entries = std::iter::once(Entry::Create(Box::new(story.birth)))
                    .chain(story.steps.into_iter().map(|step| Entry::Step(Box::new(step), None)));
                for entry in entries {
                    let asked = Clock.monotonic();
                    match journal.commit(entry).await {
                        Ok(Committed::Moved | Committed::Birth { .. }) => {}
                        other => return Err(Failure(format!("the journal answered {other:?}"))),
                    }
                    waits.borrow_mut().add(Clock.monotonic().duration_since(asked));
                }
            }
        }
    });
    for ended in join_all(songs).await {
        ended?;
    }
    let took = Clock.monotonic().duration_since(began);
    let spent = Spent { took, ..before.until(counters.moment().await?) };
    Ok(Round { spent, waits: waits.take() })
}

/// What each row of a song's life costs: all songs go through it together.
async fn by_act(counters: &Counters, journal: &Journal, stories: Vec<Story>) -> Result<(), Failure> {
    let many = stories.len();
    let (births, mut steps): (Vec<_>, Vec<_>) =
        stories.into_iter().map(|story| (story.birth, story.steps.into_iter())).unzip();
    let mut entries: Vec<Entry> = births.into_iter().map(|birth| Entry::Create(Box::new(birth))).collect();
    println!();
    for act in ACTS {
        let before = counters.moment().await?;
        for answer in join_all(entries.into_iter().map(|entry| journal.commit(entry))).await {
            answer.map_err(cannot("the journal"))?;
        }
        let spent = before.until(counters.moment().await?);
        let each = |whole: f64| whole / many as f64;
        let (cpu, wal) = (each(spent.postgres_cpu.as_secs_f64() * 1e6), each(spent.wal_bytes));
        println!("  of these, {act:<43} {wal:>33.0} {cpu:>11.1}");
        entries = steps
            .iter_mut()
            .filter_map(Iterator::next)
            .map(|step| Entry::Step(Box::new(step), None))
            .collect();
    }
    Ok(())
}

async fn through_bare(counters: &Counters, bare: &Bare, stories: Vec<Story>) -> Result<Round, Failure> {
    counters.checkpoint().await?;
    let before = counters.moment().await?;
    let began = Clock.monotonic();
    let mut waits = Times::default();
    let mut stories = stories.into_iter();
    loop {
        let (births, mut steps): (Vec<_>, Vec<_>) =
            stories.by_ref().take(bare::BATCH).map(|story| (story.birth, story.steps.into_iter())).unzip();
        if births.is_empty() {
            break;
        }
        bare.births(&births).await?;
        for _ in 0..Life::ACTS {
            let asked = Clock.monotonic();
            let rows: Vec<StepRow> = steps.iter_mut().filter_map(Iterator::next).collect();
            bare.steps(&rows).await?;
            waits.add(Clock.monotonic().duration_since(asked));
        }
    }
    let took = Clock.monotonic().duration_since(began);
    Ok(Round { spent: Spent { took, ..before.until(counters.moment().await?) }, waits })
}
