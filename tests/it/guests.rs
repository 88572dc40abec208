//! A guest who signs in: what was made before is the account's, whatever state it is in (CRED-7).

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::person::{answer, client, id, music};
use crate::harness::{Person, Provider, Server, Setup, Socket, audit, eventually, shared};
use crate::operators::operator;

/// A server whose guests may make what they like.
async fn generous(provider: &Provider) -> Server {
    let setup = Setup::new(&provider.url).await.set("credits.guest_grant", "20");
    let setup = setup.set("plans.guest.per_minute", "60000").set("plans.guest.per_day", "0");
    setup.set("plans.guest.concurrent", "100").start().await
}

pub async fn guest(server: &Server) -> Person {
    let welcome = answer(client().post(format!("{}/v1/guests", server.url()))).await.expect(201);
    let mut guest = server.person("guest").with(welcome["token"].as_str().unwrap());
    welcome["user"].as_str().unwrap().clone_into(&mut guest.user);
    guest
}

pub async fn claim(account: &Person, guest: &Person) -> crate::harness::person::Answer {
    account.post("/v1/guests/claim", json!({"guest_token": guest.token})).await
}

/// Songs move side by side: which one first, nobody says.
async fn heard(socket: &mut Socket, song: &str, kind: &str) -> Value {
    let seen = socket.seen.iter().find(|frame| frame["song"] == song && frame["kind"] == kind);
    match seen.cloned() {
        Some(event) => event,
        None => socket.event(song, kind).await,
    }
}

#[tokio::test]
async fn what_a_guest_made_moves_to_the_account_whatever_state_it_is_in() {
    let mut provider = Provider::start().await;
    let server = generous(&provider).await;
    let (guest, mira) = (guest(&server).await, server.person("mira"));
    let ready = guest.order(music("ready")).await;
    let order = provider.order().await;
    order.call_back(&order.complete()).await.expect(200);
    guest.until(&ready, "ready").await;
    let failed = guest.order(music("failed")).await;
    let order = provider.order().await;
    order.call_back(&order.failed(400, "contained artist name")).await.expect(200);
    guest.until(&failed, "failed").await;
    let deleted = guest.order(music("deleted")).await;
    provider.order().await;
    guest.delete(&format!("/v1/songs/{deleted}")).await;
    let at_work = guest.order(music("at work")).await;
    let order = provider.order().await;
    let doomed = guest.order(music("doomed")).await;
    let bad = provider.order().await;
    guest.until(&at_work, "generating_music").await;

    let (mut old, mut new) = (guest.socket().await, mira.socket().await);
    let claimed = claim(&mira, &guest).await.expect(200);
    assert_eq!(claimed["count"], 4, "{claimed}");
    for song in [&ready, &failed, &at_work, &doomed] {
        assert!(claimed["songs"].as_array().unwrap().contains(&json!(song)), "{claimed}");
        assert_eq!(guest.get(&format!("/v1/songs/{song}")).await.problem(404), "not-found");
        assert_eq!(guest.tell(song, "view", json!({})).await.problem(404), "not-found");
        heard(&mut old, song, "gone").await;
    }
    for song in [&ready, &failed, &at_work, &doomed] {
        let theirs = mira.song(song).await;
        let created = heard(&mut new, song, "created").await;
        assert_eq!(created["set"]["status"], theirs["status"], "the whole song is told");
        assert_eq!(created["set"]["prompt"], theirs["prompt"]);
    }
    assert_eq!(mira.get(&format!("/v1/songs/{deleted}")).await.problem(404), "not-found");
    assert_eq!(guest.get("/v1/songs").await.expect(200)["songs"], json!([]));

    // What was under way goes on; what comes back of it goes to who paid.
    order.call_back(&order.complete()).await.expect(200);
    mira.until(&at_work, "ready").await;
    bad.call_back(&bad.failed(400, "contained artist name")).await.expect(200);
    mira.until(&doomed, "failed").await;
    assert_eq!(mira.credits().await, 10.0, "a guest's credits do not become an account's");
    assert_eq!(
        guest.credits().await,
        20.0 - 2.0,
        "what was left stays, and what comes back goes to who paid"
    );
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_claim_that_comes_again_changes_nothing_and_of_two_accounts_the_first_has_it() {
    let mut provider = Provider::start().await;
    let server = generous(&provider).await;
    let guest = guest(&server).await;
    let songs = join_all((0..12).map(|n| guest.order(music(&format!("song {n}"))))).await;
    for _ in &songs {
        provider.order().await;
    }
    let people = [server.person("mira"), server.person("otto")];
    let answers = join_all((0..6).map(|n| claim(&people[n % 2], &guest))).await;
    let winner = usize::from(answers[1].status == 200);
    let mut moved = 0;
    for (n, answer) in answers.into_iter().enumerate() {
        if n % 2 == winner {
            moved += answer.expect(200)["count"].as_u64().unwrap();
        } else {
            assert_eq!(answer.problem(409), "wrong-state");
        }
    }
    assert_eq!(moved, 12, "each song moved once");
    for song in &songs {
        people[winner].song(song).await;
        assert_eq!(people[1 - winner].get(&format!("/v1/songs/{song}")).await.problem(404), "not-found");
    }
    assert_eq!(claim(&people[winner], &guest).await.expect(200), json!({"count": 0, "songs": []}));
    // What the guest asked for after that would be nobody's.
    assert_eq!(guest.create(music("too late")).await.problem(403), "forbidden");
    let order = json!({"package": "p", "songs": [{"prompt": "too late", "variations": [{}]}]});
    assert_eq!(guest.post("/v1/orders", order).await.problem(403), "forbidden");
    // Operators see who paid (SONG-4).
    let known = operator(&server).get(&format!("/admin/songs/{}", songs[0])).await.expect(200);
    assert_eq!(known["credits"][0]["user_id"], json!(guest.user), "{known}");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_guest_who_made_nothing_before_the_claim_makes_nothing_after_it() {
    let provider = Provider::start().await;
    let server = generous(&provider).await;
    let (guest, mira) = (guest(&server).await, server.person("mira"));
    assert_eq!(claim(&mira, &guest).await.expect(200)["count"], 0);
    assert_eq!(guest.create(music("too late")).await.problem(403), "forbidden");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_key_that_the_account_used_for_another_song_stays_with_that_one() {
    let provider = Provider::start().await;
    let server = generous(&provider).await;
    let (guest, mira) = (guest(&server).await, server.person("mira"));
    let create = async |who: &Person, key: &str| id(&who.create_with_key(key, music(key)).await.expect(202));
    let (theirs, other, mine) =
        (create(&guest, "same").await, create(&guest, "other").await, create(&mira, "same").await);
    claim(&mira, &guest).await.expect(200);
    let replay = async |key: &str| id(&mira.create_with_key(key, music(key)).await.expect(200));
    assert_eq!((replay("same").await, replay("other").await), (mine, other));
    assert_eq!(mira.song(&theirs).await["prompt"], "same");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_claim_survives_a_crash_and_its_song_goes_on_under_the_accounts_plan() {
    let mut provider = Provider::start().await;
    let server = generous(&provider).await;
    let (guest, mira) = (guest(&server).await, server.person("mira"));
    let song = guest.order(music("kept")).await;
    let order = provider.order().await;
    claim(&mira, &guest).await.expect(200);
    let server = server.crash_and_start().await;
    let mira = mira.at(server.url());
    // Until the new node has taken over, a provider is told to come again.
    eventually("the callback to be taken", || async {
        let answer = order.call_back(&order.complete()).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    mira.until(&song, "ready").await;
    let history = mira.get(&format!("/v1/songs/{song}/events")).await.expect(200).to_string();
    assert!(history.contains("gone") && history.contains("created"), "{history}");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn a_claim_needs_an_account_and_a_guests_token() {
    let server = shared().await;
    let mira = server.person("mira");
    let tokens = [json!("x"), json!(mira.token), json!(null), json!(7)];
    for token in tokens {
        let refused: Value = json!({"guest_token": token});
        assert_eq!(mira.post("/v1/guests/claim", refused).await.pointers(), ["/guest_token"]);
    }
    let guest = guest(server).await;
    assert_eq!(claim(&guest, &guest).await.problem(403), "forbidden");
    assert_eq!(claim(&mira.with("x"), &guest).await.problem(401), "unauthorized");
    assert_eq!(claim(&mira, &guest).await.expect(200)["count"], 0, "who made nothing has nothing to move");
    eventually("the account to be there", || async {
        let me = mira.get("/v1/me").await;
        if me.status == 200 { Ok(()) } else { Err(me.text) }
    })
    .await;
}
