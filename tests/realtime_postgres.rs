//! The feed's statements against a real database.

use std::sync::Arc;
use std::time::Duration;

use songflight::id::{ShareToken, SongId, UserId, fresh};
use songflight::ops::private_postgres::for_tests;
use songflight::provider::failure::RetryRules;
use songflight::song::phase::{ManualRetries, PollRules, Rules};
use songflight::store::feed::{Feed, PostgresFeed};
use songflight::store::{connect, migrate, pool};
use tokio_postgres::Client;

#[actix_web::test]
async fn the_feed_reads_heads_events_and_snapshots_with_their_head() {
    let world = World::new("feed").await;
    let (alice, bob) = (UserId::trusted("alice"), UserId::trusted("bob"));
    let us = world.song("alice", "failed", "1 hour").await;
    let old = world.song("alice", "complete", "3 days").await;
    let waiting = world.song("alice", "lyrics_ready", "3 days").await;
    for seq in 1..=4 {
        world.event("alice", us, seq).await;
    }
    world.event("alice", old, 1).await;

    let heads = world.feed.heads(&[alice.clone(), bob.clone()]).await.expect("heads");
    let (hers, his) = (heads[&alice], heads[&bob]);
    assert_eq!((hers.u, his.u), (5, 0));
    assert_ne!(hers.epoch, his.epoch, "a cursor of somebody else's is one of another log");

    let page = world.feed.of_user(&alice, 2, 2).await.expect("a page");
    assert_eq!((page.epoch, page.u, page.head), (hers.epoch, 5, 5));
    assert_eq!(page.events.iter().map(|event| event.u).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(page.events[0].set.get(), r#"{"n": 3}"#);
    let page = world.feed.of_user(&bob, 0, 9).await.expect("a page");
    assert_eq!((page.epoch, page.head, page.events.len()), (his.epoch, 0, 0));

    let page = world.feed.of_song(&alice, us, 1, 9).await.expect("a page").expect("hers");
    assert_eq!((page.epoch, page.u, page.head), (hers.epoch, 5, 4));
    assert_eq!(page.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3, 4]);
    let page = world.feed.of_song(&alice, us, 4, 9).await.expect("a page").expect("hers");
    assert_eq!((page.head, page.events.len()), (4, 0));
    assert!(world.feed.of_song(&bob, us, 0, 9).await.expect("a page").is_none());

    let all = world.feed.songs(&alice).await.expect("songs");
    assert_eq!((all.epoch, all.u, all.head), (hers.epoch, 5, 5));
    let mut ids: Vec<String> = all.songs.iter().map(|song| song["id"].as_str().expect("id").into()).collect();
    ids.sort();
    let mut expected = [us.to_string(), waiting.to_string()];
    expected.sort();
    assert_eq!(ids, expected);
    assert!(world.feed.songs(&bob).await.expect("songs").songs.is_empty());

    let one = world.feed.song(&alice, us).await.expect("a song").expect("hers");
    assert_eq!((one.epoch, one.u, one.head), (hers.epoch, 5, 4));
    assert_eq!(one.songs[0]["seq"], 4);
    assert!(world.feed.song(&bob, us).await.expect("a song").is_none());

    let link = ShareToken(fresh());
    assert!(world.feed.shared(link).await.expect("a link").is_none());
    world.link(us, link).await;
    assert_eq!(world.feed.shared(link).await.expect("a link"), Some((us, alice.clone())));
    world.client.execute("update songs set deleted_at = now()", &[]).await.expect("deleted");
    assert!(world.feed.shared(link).await.expect("a link").is_none());
    assert!(world.feed.song(&alice, us).await.expect("a song").is_none());
}

struct World {
    client: Client,
    feed: PostgresFeed,
}

impl World {
    async fn new(name: &str) -> Self {
        let config = for_tests().fresh_database(name).await.expect("a database");
        migrate(&config).await.expect("migrated");
        let client = connect(&config, "test").await.expect("connected");
        let rules = Arc::new(rules());
        let feed = PostgresFeed::new(pool(&config, 4).expect("a pool"), rules);
        Self { client, feed }
    }

    async fn song(&self, user: &str, status: &str, ago: &str) -> SongId {
        let id = fresh();
        let wish = serde_json::json!({
            "mode": "music", "title": null, "prompt": "a waltz", "lyrics": null, "provider": "suno",
            "model": null, "vocal_gender": null, "style_weight": null, "weirdness": null, "audio_weight": null,
            "reference_audio_url": null, "persona_id": null, "variants": 1, "preview": false,
            "calls": {"lyrics": 1, "generate": 1}, "prices": {"lyrics": 0, "generate": 0}, "share_tokens": [],
        });
        self.client
            .execute("insert into profiles (user_id) values ($1) on conflict do nothing", &[&user])
            .await
            .expect("a user");
        self.client
            .execute(
                &format!(
                    "insert into songs (id, user_id, status, mode, wish, content_hash, updated_at)
                     values ($1, $2, '{status}', 'music', $3, '', now() - interval '{ago}')"
                ),
                &[&id, &user, &wish],
            )
            .await
            .expect("a song");
        self.client
            .execute(
                "insert into tasks (id, song_id, number, kind, provider, progress, ended_at)
                 values ($1, $2, 1, 'generate', 'suno', '{}', now())",
                &[&fresh(), &id],
            )
            .await
            .expect("a task");
        SongId(id)
    }

    async fn event(&self, user: &str, song: SongId, seq: i64) {
        self.client
            .execute(
                "with head as (update profiles set u = u + 1 where user_id = $1 returning u),
                      task as (update tasks set seq = $3 where song_id = $2)
                 insert into song_events (at, song_id, seq, user_id, u, kind, set)
                 select now(), $2, $3, $1, head.u, 'updated', jsonb_build_object('n', $3) from head",
                &[&user, &song.0, &seq],
            )
            .await
            .expect("an event");
    }

    async fn link(&self, song: SongId, link: ShareToken) {
        self.client
            .execute(
                "insert into song_variants (song_id, variant_number, status, share_token) values ($1, 1, 'complete', $2)",
                &[&song.0, &link.0],
            )
            .await
            .expect("a link");
    }
}

fn rules() -> Rules {
    let a_while = Duration::from_secs(60);
    Rules {
        deadline: a_while,
        grace: a_while,
        max_wait: a_while,
        own: std::collections::BTreeMap::new(),
        poll: PollRules { initial: a_while, max: a_while, multiplier: 2.0 },
        retry: RetryRules::default(),
        manual_retries: ManualRetries { max: 5, per_hour: 2 },
    }
}
