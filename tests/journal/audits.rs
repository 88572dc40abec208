//! An audit of a running service beside the migrations of the next version.

use std::time::Duration;

use songflight::store::audit::{Scope, audit};
use songflight::store::stuck::Patience;
use songflight::store::{AUDIT, migrate};
use tokio::time::timeout;

use super::life::Life;
use super::world::World;

#[actix_web::test]
async fn an_audit_that_is_at_its_last_question_stands_in_nobodys_way_at_the_others() {
    let world = World::new("at_its_last").await;
    let (auditor, migrating) = (world.connection(AUDIT).await, world.connection("migrating").await);
    // The last rule is about letters.
    world.look.batch_execute("begin; lock table failed_jobs").await.unwrap();
    let second = Duration::from_secs(1);
    let patience = Patience { slack: second, deadline: second, max_wait: second };
    let scope = Scope { user: None, patience, examples: 1 };
    tokio::select! {
        biased;
        found = audit(&auditor, &scope) => panic!("{found:?}"),
        () = world.waits_for_a_lock(AUDIT) => {}
    }
    for table in ["songs", "tasks", "profiles", "credit_entries", "song_events"] {
        let lock = format!("begin; lock table {table} nowait; rollback");
        migrating.batch_execute(&lock).await.unwrap_or_else(|error| panic!("{table}: {error:?}"));
    }
}

#[actix_web::test]
async fn a_migration_does_not_wait_for_an_audit() {
    let world = World::new("in_the_way").await;
    let undone = "drop trigger forget_links on songs; drop function forget_links();
                  delete from refinery_schema_history where version = 21";
    world.look.batch_execute(undone).await.unwrap();
    let auditor = world.connection(AUDIT).await;
    let asking = async {
        auditor.batch_execute("begin; lock table songs in row exclusive mode").await.unwrap();
        let asked = auditor.batch_execute("select pg_sleep(60)").await;
        auditor.batch_execute("rollback").await.unwrap();
        asked
    };
    let migrating = timeout(Duration::from_secs(20), migrate(world.database()));
    let (asked, migrated) = tokio::join!(biased; asking, migrating);
    assert_eq!(migrated.expect("long before the audit ends"), Ok(1));
    assert!(asked.is_err(), "it was cancelled");
}

/// Who goes back from an upgrade, or starts again beside nodes that are newer.
#[actix_web::test]
async fn a_database_that_a_later_version_brought_further_is_left_as_it_is() {
    let world = World::new("later").await;
    let later = "insert into refinery_schema_history (version, name, applied_on, checksum)
                 values (999, 'later', '2030-01-01T00:00:00Z', '1')";
    world.look.batch_execute(later).await.unwrap();
    // Restored into another server: its log is not the one that clients know (RT-2).
    world.look.batch_execute("update event_log set system_identifier = 'x'").await.unwrap();
    assert_eq!(migrate(world.database()).await, Ok(0));
    let row = world.look.query_one("select epoch from event_log", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 2);
}

/// By its node's clock it was made on the oldest day that is kept, by the database's on the one before.
#[actix_web::test]
async fn a_song_that_was_made_as_the_oldest_day_began_may_lack_its_first_event() {
    let mut world = World::new("oldest_day").await;
    world.begin();
    let mut song = Life::new("mira");
    world.create_all(std::slice::from_ref(&song)).await;
    world.step(song.next(0)).await.unwrap();
    world.step(song.next(1)).await.unwrap();
    world.look.batch_execute("delete from song_events where seq = 1").await.unwrap();
    let hour = Duration::from_secs(3600);
    let patience = Patience { slack: hour, deadline: hour, max_wait: hour };
    let broken_at = async |after: &str| {
        let sql =
            format!("update songs set created_at = (select min(at) from song_events) + interval '{after}'");
        world.look.batch_execute(&sql).await.unwrap();
        audit(&world.look, &Scope { user: None, patience, examples: 1 }).await.unwrap().len()
    };
    assert_eq!(broken_at("300 ms").await, 0);
    assert_eq!(broken_at("10 minutes").await, 1, "its beginning must be there");
}
