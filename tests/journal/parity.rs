//! Creations as nodes of the version before decide them (`create_songs` in the database), and as this one does: the same.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use songflight::credit::Credits;
use songflight::credit::plan::{Limits, Plan, Plans};
use songflight::store::births::{Birth, Terms};
use songflight::store::journal::{Committed, Entry, NodeKey};
use songflight::store::row::NewSong;
use songflight::time::Time;
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use super::life::Life;
use super::world::World;

const CREATE_SONGS: &str = "
select outcome, song_id, u, available, on_plan, left_now, used, previews,
       ceil(extract(epoch from next_at) * 1000)::bigint as next_at,
       ceil(extract(epoch from full_at) * 1000)::bigint as full_at
  from create_songs($1, $2, $3, array[$4], array[$5::uuid], array[$6::text], array[$7::bytea], array[$8::text],
       array[$9::jsonb], array[$10::jsonb], array[null::text], array[null::text], array[$11::timestamptz],
       array[$12::uuid], array[$13::text], array[$14::text], array[$15::bigint], array[$16::jsonb], array[$17::jsonb],
       array[$18::json], array[$19::text], array[$20::bigint], array[$21::boolean])";

/// Dice that always fall the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn terms(dice: &mut Dice) -> Terms {
    let limits = |per_minute, per_day, concurrent| Limits { per_minute, per_day, concurrent };
    let plans = Plans {
        guest: limits(1, Some(2), 1),
        free: limits(7, Some(9), 5),
        pro: limits(11, None, 8),
        premium: limits(60, None, 20),
        previews_per_day: 3,
    };
    let plan = [None, None, Some(Plan::Pro), Some(Plan::Premium)][dice.below(4) as usize];
    Terms {
        plans: Arc::new(plans),
        plan,
        grant: Credits::from_thousandths(25_500),
        refuse_when_busy: dice.below(4) == 0,
    }
}

/// Around two midnights, mostly a few seconds apart.
fn creations(dice: &mut Dice) -> Vec<NewSong> {
    let midnight = Time::from_millis(1_800_057_600_000);
    let mut now = midnight + Duration::from_secs(86_400 - 90);
    (0..300)
        .map(|number| {
            let step = [0, 1, 400, 2_000, 9_000, 30_000][dice.below(6) as usize];
            now = now + Duration::from_millis(if number == 150 { 86_400_000 - 600_000 } else { step });
            let user = ["alice", "bob", "carol", "guest:1"][dice.below(4) as usize];
            let mut birth = Life::new(user).birth();
            birth.terms = terms(dice);
            birth.song.created_at = now;
            birth.content_hash = [dice.below(5) as u8; 32];
            birth.idempotency_key = (dice.below(3) == 0).then(|| format!("key {}", dice.below(12)));
            if dice.below(5) == 0 {
                let mut wish = (*birth.song.wish).clone();
                wish.preview = true;
                birth.song.wish = Arc::new(wish);
                birth.song.head.price = Credits::ZERO;
            }
            birth
        })
        .collect()
}

async fn as_before(client: &Client, new: &NewSong, node: NodeKey) -> Value {
    let song = &new.song;
    let plans = &new.terms.plans;
    let limits = |plan: &Plan| (plan.as_str().to_owned(), plans.of(*plan).as_json());
    let mut all: Value = Plan::ALL.iter().map(limits).collect();
    all["previews_per_day"] = json!(plans.previews_per_day);
    let at = jiff::Timestamp::from_millisecond(song.created_at.millis()).unwrap();
    let row = client
        .query_one(
            CREATE_SONGS,
            &[
                &node.id,
                &node.epoch,
                &all,
                &song.user.as_str(),
                &song.id.0,
                &new.idempotency_key,
                &&new.content_hash[..],
                &song.wish.mode.as_str(),
                &Json(&*song.wish),
                &*song.metadata,
                &at,
                &song.head.task.0,
                &song.head.kind.as_str(),
                &song.head.provider.as_str(),
                &song.head.price.thousandths(),
                &song.phase.run().map(Json),
                &json!({}),
                &Json(&new.set),
                &new.terms.plan.map(Plan::as_str),
                &new.terms.grant.thousandths(),
                &new.terms.refuse_when_busy,
            ],
        )
        .await
        .expect("an answer");
    let outcome: &str = row.get("outcome");
    let song: Option<uuid::Uuid> = row.get("song_id");
    let told = matches!(outcome, "created" | "replay").then_some(song).flatten();
    json!([
        outcome,
        told,
        (outcome == "short").then(|| row.get::<_, i64>("available")),
        row.get::<_, &str>("on_plan"),
        row.get::<_, i32>("left_now"),
        row.get::<_, i64>("next_at"),
        row.get::<_, i64>("full_at"),
        row.get::<_, i32>("used"),
        row.get::<_, i32>("previews"),
    ])
}

async fn as_now(world: &World, new: &NewSong) -> Value {
    let committed = world.journal.commit(Entry::Create(Box::new(new.clone()))).await;
    let Ok(Committed::Birth { birth, standing }) = committed else { panic!("{committed:?}") };
    let (outcome, song, available) = match birth {
        Birth::Created { song } => ("created", Some(song.0), None),
        Birth::Replay { song } => ("replay", Some(song.0), None),
        Birth::KeyMismatch => ("mismatch", None, None),
        Birth::KeyGone => ("gone", None, None),
        Birth::Claimed => ("claimed", None, None),
        Birth::Short { available, .. } => ("short", None, Some(available.thousandths())),
        Birth::TooFast => ("too_fast", None, None),
        Birth::DayUsedUp => ("day_used_up", None, None),
        Birth::PreviewsUsedUp => ("previews_used_up", None, None),
        Birth::TooManyAtOnce => ("too_many", None, None),
    };
    json!([
        outcome,
        song,
        available,
        standing.plan.as_str(),
        standing.left,
        standing.next_at.millis(),
        standing.full_at.millis(),
        standing.used_today,
        standing.previews_today,
    ])
}

/// All that creations leave behind, but for when it was written.
async fn books(client: &Client) -> String {
    let sql = "
        select jsonb_pretty(jsonb_build_object(
            'people', (select jsonb_agg(to_jsonb(p) - 'created_at' order by user_id) from profiles p),
            'songs', (select jsonb_agg(to_jsonb(s) order by id) from songs s),
            'tasks', (select jsonb_agg(to_jsonb(t) - 'owner' - 'epoch' - 'progress' order by id) from tasks t),
            'ledger', (select jsonb_agg(to_jsonb(c) - 'id' - 'at' order by user_id, id) from credit_entries c),
            'events', (select jsonb_agg(to_jsonb(e) - 'at' order by user_id, u) from song_events e)))";
    client.query_one(sql, &[]).await.expect("the books").get(0)
}

#[actix_web::test]
async fn creations_are_decided_as_the_version_before_decides_them() {
    let mut now = World::new("as_now").await;
    let before = World::new("as_before").await;
    now.begin();
    let mut dice = Dice(7);
    let mut outcomes = std::collections::BTreeMap::new();
    for (number, new) in creations(&mut dice).iter().enumerate() {
        let node = before.journal.node();
        let (decided, expected) = (as_now(&now, new).await, as_before(&before.look, new, node).await);
        assert_eq!(decided, expected, "creation {number}: {new:?}");
        *outcomes.entry(decided[0].as_str().unwrap().to_owned()).or_insert(0) += 1;
        // Some come to an end, so that there is room for others; some are deleted.
        let change = match dice.below(6) {
            0 => {
                "update songs set status = 'cancelled' where id = (select max(id::text)::uuid from songs where rank = 4)"
            }
            1 => {
                "update songs set deleted_at = created_at where id = (select min(id::text)::uuid from songs where deleted_at is null)"
            }
            _ => continue,
        };
        for world in [&now, &before] {
            world.look.execute(change, &[]).await.unwrap();
        }
    }
    println!("{outcomes:?}");
    assert_eq!(outcomes.len(), 9, "every outcome came up: {outcomes:?}");
    assert_eq!(books(&now.look).await, books(&before.look).await);
}
