//! People who go on ordering songs while the program dies under them: every request is repeated until it is
//! answered, and each of them watches all of their songs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt::spawn;
use serde_json::json;

use super::PATIENCE;
use super::caller::Caller;
use super::dice::Dice;
use super::follow::{Figures, Follower};
use super::watcher::watch;

const PEOPLE: usize = 4;
/// Songs under way per person; who has so many waits.
const AT_ONCE: usize = 40;

pub struct People {
    each: Vec<Rc<Somebody>>,
}

struct Somebody {
    caller: Caller,
    follower: Rc<RefCell<Follower>>,
    dice: RefCell<Dice>,
    enough: Cell<bool>,
    under_way: Cell<usize>,
    /// By idempotency key.
    ordered: RefCell<Vec<(String, String)>>,
}

impl People {
    pub fn new(url: &str, mut dice: Dice) -> Self {
        let somebody = |number| {
            Rc::new(Somebody {
                caller: Caller::new(url, &format!("person-{number}")),
                follower: Rc::default(),
                dice: RefCell::new(dice.fork()),
                enough: Cell::new(false),
                under_way: Cell::new(0),
                ordered: RefCell::default(),
            })
        };
        Self { each: (0..PEOPLE).map(somebody).collect() }
    }

    pub fn begin(&self) {
        for somebody in &self.each {
            spawn(watch(
                somebody.caller.person.url.clone(),
                somebody.caller.person.token.clone(),
                somebody.follower.clone(),
            ));
            spawn(order_songs(somebody.clone()));
        }
    }

    /// No new songs; waits until those under way are where their owners want them.
    pub async fn order_no_more(&self) {
        for somebody in &self.each {
            somebody.enough.set(true);
        }
        let all = async {
            while self.each.iter().any(|somebody| somebody.under_way.get() > 0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("every song to end");
    }

    /// Each watcher knows each song as HTTP tells it, and was told everything once and in order.
    pub async fn have_seen_everything(&self) {
        for somebody in &self.each {
            let ordered = somebody.ordered.borrow().clone();
            for (_, id) in &ordered {
                let song = somebody.caller.song(id).await;
                let seen = async {
                    while somebody.follower.borrow().compare(&song.body).is_err() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                if tokio::time::timeout(Duration::from_secs(20), seen).await.is_err() {
                    panic!("{}", somebody.follower.borrow().compare(&song.body).unwrap_err());
                }
            }
            let follower = somebody.follower.borrow();
            assert_eq!(follower.faults, Vec::<String>::new());
            assert_eq!(follower.figures.snapshots, 1, "only the first connection needed a snapshot");
            for (id, song) in &follower.songs {
                let told = i64::try_from(song.kinds.len()).unwrap();
                assert!(follower.figures.skipped > 0 || told == song.seq, "song {id}: {:?}", song.kinds);
            }
        }
    }

    /// Idempotency keys and songs, sorted.
    pub fn ordered(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.each.iter().flat_map(|each| each.ordered.borrow().clone()).collect();
        all.sort();
        all
    }

    pub fn figures(&self) -> Figures {
        self.each.iter().map(|each| each.follower.borrow().figures).fold(Figures::default(), |sum, each| {
            Figures {
                events: sum.events + each.events,
                repeated: sum.repeated + each.repeated,
                skipped: sum.skipped + each.skipped,
                resumes: sum.resumes + each.resumes,
                snapshots: sum.snapshots + each.snapshots,
            }
        })
    }
}

async fn order_songs(somebody: Rc<Somebody>) {
    for number in 0_u32.. {
        let pause = somebody.dice.borrow_mut().millis(50, 400);
        tokio::time::sleep(pause).await;
        if somebody.enough.get() {
            return;
        }
        if somebody.under_way.get() < AT_ONCE {
            somebody.under_way.set(somebody.under_way.get() + 1);
            let somebody = somebody.clone();
            spawn(async move {
                live(&somebody, number).await;
                somebody.under_way.set(somebody.under_way.get() - 1);
            });
        }
    }
}

/// A song from its order to its end, as its owner goes about it.
async fn live(somebody: &Somebody, number: u32) {
    let (lyrics_first, moderated, cancelled) = {
        let mut dice = somebody.dice.borrow_mut();
        (dice.hit(0.4), dice.hit(0.05), dice.hit(0.1).then(|| dice.millis(0, 1_500)))
    };
    let mode = if lyrics_first { "lyrics_first" } else { "music" };
    let words = if moderated { "sim:fail=moderation" } else { "about the sea" };
    let wish = json!({"mode": mode, "prompt": format!("song {number} {words}")});
    let key = format!("{}-{number}", somebody.caller.person.user);
    let answer = somebody.caller.create(&key, &wish).await;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text);
    let id = answer.body["id"].as_str().expect("an id").to_owned();
    somebody.ordered.borrow_mut().push((key, id.clone()));
    if let Some(after) = cancelled {
        tokio::time::sleep(after).await;
        let answer = somebody.caller.tell(&id, "cancel", &json!({})).await;
        assert!(matches!(answer.status, 200 | 409), "{}", answer.text);
    }
    loop {
        let status = somebody.status(&id);
        match status.as_deref() {
            Some("ready" | "failed" | "cancelled") => return,
            Some("lyrics_ready") => {
                let answer = somebody.caller.tell(&id, "lyrics", &json!({"variant_index": 0})).await;
                // 409: an answer that was lost had chosen already.
                assert!(matches!(answer.status, 200 | 409), "{}", answer.text);
                somebody.until_past(&id, "lyrics_ready").await;
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

impl Somebody {
    /// As its watcher knows it.
    fn status(&self, id: &str) -> Option<String> {
        let follower = self.follower.borrow();
        Some(follower.songs.get(id)?.fields.get("status")?.as_str()?.to_owned())
    }

    async fn until_past(&self, id: &str, status: &str) {
        while self.status(id).as_deref() == Some(status) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
