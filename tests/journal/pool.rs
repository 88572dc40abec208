//! What questions to the pool leave behind when nobody waits for their answer any more.

use std::time::Duration;

use songflight::song::sweeper;
use songflight::store::stuck::Patience;
use songflight::store::{StoreError, ask, ask_within, connect};
use tokio::time::timeout;

use super::world::World;

const SOON: Duration = Duration::from_secs(2);

#[actix_web::test]
async fn a_connection_that_does_not_answer_is_not_lent_again() {
    let pool = World::new("silent").await.pool_of_one();
    let silent = ask_within(&pool, Duration::from_millis(200), async |client| {
        Ok(client.batch_execute("select pg_sleep(60)").await?)
    });
    assert!(silent.await.is_err());
    assert_eq!(pool.status().size, 0);
    let answered = ask(&pool, async |client| Ok(client.query_one("select 1", &[]).await?.get::<_, i32>(0)));
    assert_eq!(timeout(SOON, answered).await.expect("another connection").expect("an answer"), 1);
}

/// A password that was changed, a database that lets nobody in yet: a row that is to be written is not to blame.
#[actix_web::test]
async fn who_is_not_let_in_finds_the_database_away() {
    let mut nobody = World::new("not_let_in").await.database().clone();
    nobody.user("nobody-of-this-name");
    let refused = connect(&nobody, "test").await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

#[actix_web::test]
async fn who_gives_up_soon_costs_no_connection() {
    let pool = World::new("hasty").await.pool_of_one();
    let question = ask(&pool, async |client| Ok(client.batch_execute("select pg_sleep(1)").await?));
    assert!(timeout(Duration::from_millis(300), question).await.is_err());
    assert_eq!((pool.status().size, pool.status().available), (1, 1));
}

#[actix_web::test]
async fn a_look_for_stuck_songs_that_is_broken_off_leaves_a_clean_connection() {
    let world = World::new("broken_off").await;
    let pool = world.pool_of_one();
    world.look.batch_execute("begin; lock table tasks").await.unwrap();
    let slack = Duration::from_secs(60);
    let patience = Patience { slack, deadline: slack, max_wait: slack };
    tokio::select! {
        biased;
        looked = sweeper::look(&pool, patience, 10) => panic!("{looked:?}"),
        () = world.waits_for_a_lock("songflight reads") => {}
    }
    world.look.batch_execute("rollback").await.unwrap();
    let written =
        ask(&pool, async |client| Ok(client.execute("update nodes set name = 'written'", &[]).await?));
    assert_eq!(written.await.expect("a connection as any other"), 1);
    assert_eq!(pool.status().size, 1);
    let written = world.look.query_one("select name from nodes", &[]).await.unwrap();
    assert_eq!(written.get::<_, &str>(0), "written", "and in a transaction that ended");
}
