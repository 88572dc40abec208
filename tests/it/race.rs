//! One purse and many hands: whatever comes at the same time, it is never overdrawn, and what was charged and not
//! given back was delivered (CRED-2, CRED-5, SONG-11). `tests/crash` has the same while the program is killed.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::person::{Person, id, music};
use crate::harness::{Purse, audit, eventually, shared};

const CLIENTS: u32 = 64;

#[tokio::test]
async fn sixty_four_clients_with_one_purse_never_overdraw_it() {
    let server = shared().await;
    let mira = server.person("mira");
    // The purse holds exactly ten songs.
    assert_eq!(mira.credits().await, 10.0);
    let songs = join_all((0..CLIENTS).map(|number| a_client(mira.clone(), number))).await;
    let songs: Vec<String> = songs.into_iter().flatten().collect();
    assert!(songs.len() >= 10, "{}", songs.len());

    let database = server.look().await;
    let user = mira.user.as_str();
    eventually("all songs to end", || async {
        let sql = "select count(*) from songs where user_id = $1 and library_rank(status) = 4";
        match database.query_one(sql, &[&user]).await.expect("a count").get::<_, i64>(0) {
            0 => Ok(()),
            under_way => Err(format!("{under_way} under way")),
        }
    })
    .await;
    Purse::of(&database, user).await.adds_up(10_000);
    audit(server.look().await, Some(user)).await;
}

/// One of them; answers the songs it was given.
async fn a_client(mira: Person, number: u32) -> Vec<String> {
    let prompt = match number % 4 {
        // Fails and gives back: others may use what comes back.
        0 => format!("song {number} sim:fail=moderation"),
        1 => format!("song {number} sim:slow=2s"),
        _ => format!("song {number}"),
    };
    // Half of them share their key with the neighbour, and mean the same song.
    let key = format!("key-{}", if number % 4 == 3 { number - 1 } else { number });
    let prompt = if number % 4 == 3 { format!("song {}", number - 1) } else { prompt };
    let mut given = Vec::new();
    for _ in 0..4 {
        let answer = mira.create_with_key(&key, music(&prompt)).await;
        match answer.status {
            200 | 202 => {
                let song = id(&answer.body);
                if number % 4 == 1 {
                    let told = mira.tell(&song, "cancel", json!({})).await;
                    assert!(matches!(told.status, 200 | 409), "{}", told.text);
                }
                given.push(song);
            }
            402 => assert_eq!(answer.body["required"], json!(1.0)),
            other => panic!("{other}: {}", answer.text),
        }
    }
    let balance: Value = mira.get("/v1/me").await.expect(200);
    assert!(balance["credits"].as_f64().is_some_and(|credits| (0.0..=10.0).contains(&credits)), "{balance}");
    given.dedup();
    assert!(given.len() <= 1, "one key, one song: {given:?}");
    given
}
