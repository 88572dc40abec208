//! Songs of which one does not read: the others do, and it is told which.

use serde_json::json;
use songflight::id::{SongId, UserId};
use songflight::store::songs::{self, Listing, Sort};

use super::life::Life;
use super::world::World;

#[actix_web::test]
async fn a_song_that_does_not_read_is_named_and_hides_no_other() {
    let mut world = World::new("unreadable").await;
    let made: Vec<Life> = (0..4).map(|_| Life::new("mira")).collect();
    world.begin();
    world.create_all(&made).await;
    let mut ids: Vec<SongId> = made.iter().map(|life| life.song.id).collect();
    ids.sort_by(|a, b| b.cmp(a));
    let broken = "update songs set wish = $1 where id = $2";
    world.look.execute(broken, &[&json!([]), &ids[1].0]).await.unwrap();
    let client = world.pool.get().await.unwrap();

    let loaded = songs::load_many(&client, &ids).await.unwrap();
    assert_eq!(loaded.unreadable, [ids[1]]);
    assert_eq!(loaded.songs().map(|song| song.id).collect::<Vec<_>>(), [ids[0], ids[2], ids[3]]);

    // Also where a page ends with it.
    let mira = UserId::trusted("mira");
    let page = async |after| {
        let listing =
            Listing { user: &mira, statuses: &[], title: None, sort: Sort::Newest, after, limit: 2 };
        songs::library(&client, &listing).await.unwrap()
    };
    let first = page(None).await;
    assert_eq!(first.songs.iter().map(|song| song.id).collect::<Vec<_>>(), [ids[0]]);
    let second = page(first.next).await;
    assert_eq!(second.songs.iter().map(|song| song.id).collect::<Vec<_>>(), [ids[2], ids[3]]);
    assert!(second.next.is_none());
}
