//! What the log tells of an entry, and dead letters that were closed long ago.

use std::sync::Arc;

use serde_json::json;
use songflight::id::fresh;
use songflight::store::journal::Entry;
use songflight::store::letters;
use songflight::store::row::InboxRow;

use super::life::Life;
use super::world::World;

#[actix_web::test]
async fn the_log_tells_which_entry_it_was_and_nothing_of_what_somebody_wrote() {
    let mut life = Life::new("mira@example.com");
    life.song.lyrics = Some("very private words".to_owned());
    life.song.metadata = Arc::new(json!({"for": "very private words"}));
    let (song, task) = (life.song.id.to_string(), fresh());
    let birth = Entry::Create(Box::new(life.birth()));
    let body = b"very private words".to_vec().into();
    let callback = InboxRow { provider: "suno", task, call: 0, attempt: 0, body, outcome: "applied" };
    let step = Entry::Step(Box::new(life.next(0)), Some(callback.clone()));
    let claim = Entry::Claim(Box::new(life.claimed("otto@example.com")));
    for (entry, id) in
        [(birth, &song), (step, &song), (claim, &song), (Entry::Callback(callback), &task.to_string())]
    {
        let told = format!("{entry:?}");
        assert!(told.contains(id) && told.len() < 100, "{told}");
        assert!(!told.contains("private") && !told.contains("example.com"), "{told}");
    }
}

#[actix_web::test]
async fn a_letter_tells_operators_all_of_a_row_that_was_refused() {
    let mut world = World::new("told_in_full").await;
    world.begin();
    let mut life = Life::new("mira");
    // No text in Postgres holds this character.
    life.song.title = Some("words\u{0}".to_owned());
    let refused = world.journal.commit(Entry::Create(Box::new(life.birth()))).await;
    assert!(refused.is_err(), "{refused:?}");
    let told = "select context ->> 'entry' from failed_jobs";
    let told: String = world.look.query_one(told, &[]).await.unwrap().get(0);
    assert!(told.contains("a waltz") && told.contains("words"), "{told}");
}

const LONG_CLOSED: &str = "insert into failed_jobs (kind, context, error, resolved_at)
    select 'step', '{}', 'error ' || n, now() - interval '90 days' - n * interval '1 minute' from generate_series(1, 5) n";
const OTHERS: &str = "insert into failed_jobs (kind, context, error, failed_at, resolved_at)
    values ('step', '{}', 'open', now() - interval '1 year', null), ('step', '{}', 'closed', now() - interval '1 year', now())";

#[actix_web::test]
async fn letters_that_were_closed_long_ago_are_removed_a_page_at_a_time_and_no_others() {
    let world = World::new("old_letters").await;
    for letters in [LONG_CLOSED, OTHERS] {
        world.look.batch_execute(letters).await.unwrap();
    }
    let client = world.pool.get().await.unwrap();
    assert_eq!(letters::forget_old(&client, 90, 3).await.unwrap(), 3);
    let oldest = "select string_agg(error, ', ' order by id) from failed_jobs";
    let left: String = world.look.query_one(oldest, &[]).await.unwrap().get(0);
    assert_eq!(left, "error 1, error 2, open, closed", "the oldest went first");
    assert_eq!(letters::forget_old(&client, 90, 3).await.unwrap(), 2);
    assert_eq!(letters::forget_old(&client, 90, 3).await.unwrap(), 0);
    assert_eq!(world.count("failed_jobs").await, 2);
}

#[actix_web::test]
async fn old_letters_are_found_without_reading_the_others() {
    let world = World::new("many_letters").await;
    let many = "insert into failed_jobs (kind, context, error, resolved_at)
                select 'step', '{}', 'closed', case when n % 2 = 0 then now() end from generate_series(1, 20000) n";
    for statement in [many, LONG_CLOSED, "analyze failed_jobs"] {
        world.look.batch_execute(statement).await.unwrap();
    }
    let explain = "explain select id from failed_jobs where resolved_at < now() - interval '90 days' order by resolved_at limit 1000";
    let plan = world.look.query(explain, &[]).await.unwrap();
    let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("failed_jobs_resolved")), "{plan:?}");
}
