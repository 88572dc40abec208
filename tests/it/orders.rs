//! Orders of several songs in several variations (CRED-8).

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::guests::{claim, guest};
use crate::harness::person::{Answer, answer, id, in_seconds, token};
use crate::harness::provider::Order;
use crate::harness::{Caller, Person, Provider, Server, Setup, audit, eventually, shared};

fn song(title: &str) -> Value {
    json!({"title": title, "prompt": "a wedding", "lyrics": "[Verse]\nla", "style_tags": ["waltz"],
           "variations": [{"style_tags": ["slow"]}, {"modifier": "with strings"}, {}]})
}

fn order(songs: &[Value]) -> Value {
    json!({"package": "wedding", "occasion_date": "2027-05-08", "songs": songs})
}

async fn place(person: &Person, key: &str, body: &Value) -> Answer {
    let request = person.request(Method::POST, "/v1/orders").header("Idempotency-Key", key);
    answer(request.json(body)).await
}

async fn until(person: &Person, order: &str, status: &str) -> Value {
    eventually(&format!("the order to be {status}"), || async {
        let found = person.get(&format!("/v1/orders/{order}")).await;
        if found.body["status"] == status { Ok(found.body) } else { Err(found.text) }
    })
    .await
}

fn operator(server: &Server) -> Person {
    let nobody = server.person("shop");
    nobody.with(&token(&json!({"sub": nobody.user, "exp": in_seconds(3600), "role": "service"})))
}

/// The three orders at the provider, in the order of the variations.
async fn three(provider: &mut Provider) -> Vec<Order> {
    let mut orders = vec![provider.order().await, provider.order().await, provider.order().await];
    orders.sort_by_key(|order| order.key.split('.').nth(1).map(str::to_owned));
    orders
}

#[tokio::test]
async fn an_order_is_made_in_variations_chosen_from_and_paid() {
    let server = shared().await;
    let mira = server.person("mira");
    let placed = mira.post("/v1/orders", order(&[song("One"), song("Two")])).await;
    assert_eq!(placed.header("location"), format!("/v1/orders/{}", id(&placed.body)));
    let placed = placed.expect(202);
    assert_eq!((&placed["package"], &placed["occasion_date"]), (&json!("wedding"), &json!("2027-05-08")));
    assert_eq!((&placed["status"], &placed["payment_reference"]), (&json!("making"), &Value::Null));
    assert_eq!(mira.credits().await, 10.0 - 4.0, "three variants cost as two times two");
    let made = until(&mira, &id(&placed), "complete").await;
    for (place, title) in made["songs"].as_array().unwrap().iter().zip(["One", "Two"]) {
        assert_eq!((&place["done"], &place["total"], &place["title"]), (&json!(3), &json!(3), &json!(title)));
        assert_eq!(place["selected"], Value::Null);
        let song = mira.song(place["song_id"].as_str().unwrap()).await;
        assert_eq!(song["variants"].as_array().unwrap().len(), 3, "one clip of each call is kept: {song}");
    }
    let path = format!("/v1/orders/{}", id(&placed));
    let (first, second) = (&made["songs"][0]["song_id"], &made["songs"][1]["song_id"]);
    let choice =
        json!({"selections": [{"song_id": first, "variant_number": 2}], "occasion_date": "2027-05-09"});
    let chosen = mira.patch(&path, choice).await.expect(200);
    assert_eq!((&chosen["songs"][0]["selected"], &chosen["songs"][1]["selected"]), (&json!(2), &Value::Null));
    assert_eq!(chosen["occasion_date"], "2027-05-09");
    assert_eq!(mira.song(first.as_str().unwrap()).await["variants"][1]["selected"], true);
    let wrong = json!({"selections": [{"song_id": second, "variant_number": 4}, {"song_id": "x", "variant_number": 1}]});
    let wrong = mira.patch(&path, wrong).await;
    assert_eq!(wrong.pointers(), ["/selections/0/variant_number", "/selections/1/song_id"]);

    let (shop, pay) = (operator(server), format!("{path}/payment"));
    assert_eq!(mira.post(&pay, json!({"payment_reference": "pi_1"})).await.problem(403), "forbidden");
    for _ in 0..2 {
        shop.post(&pay, json!({"payment_reference": "pi_1"})).await.expect(200);
    }
    assert_eq!(shop.post(&pay, json!({"payment_reference": "pi_2"})).await.problem(409), "wrong-state");
    assert_eq!(mira.get(&path).await.expect(200)["payment_reference"], "pi_1");
    let otto = server.person("otto");
    assert_eq!(otto.get(&path).await.problem(404), "not-found");
    assert_eq!(otto.patch(&path, json!({"complete": true})).await.problem(404), "not-found");
    audit(server.look().await, Some(&mira.user)).await;
}

#[tokio::test]
async fn what_is_there_is_never_made_again_and_what_is_missing_is_made_once() {
    let mut provider = Provider::start().await;
    let server = Setup::new(&provider.url).await.start().await;
    let mira = server.person("mira");
    let placed = place(&mira, "one", &order(&[song("One")])).await.expect(202);
    let path = format!("/v1/orders/{}", id(&placed));
    let calls = three(&mut provider).await;
    let styles: Vec<_> = calls.iter().map(|call| call.body["style"].as_str().unwrap_or_default()).collect();
    assert_eq!(styles, ["waltz, slow", "waltz, with strings", "waltz"]);
    calls[1].call_back(&calls[1].complete()).await.expect(200);
    let found = mira.get(&path).await.expect(200);
    assert_eq!((&found["status"], &found["songs"][0]["done"]), (&json!("making"), &json!(1)));
    calls[0].call_back(&calls[0].complete()).await.expect(200);
    calls[2].call_back(&calls[2].failed(400, "contained artist name")).await.expect(200);
    let two = until(&mira, &id(&placed), "incomplete").await;
    assert_eq!((&two["songs"][0]["done"], &two["songs"][0]["status"]), (&json!(2), &json!("ready")));
    let partly = mira.song(two["songs"][0]["song_id"].as_str().unwrap()).await;
    assert_eq!(partly["variants"][2]["status"], "failed");

    let server = server.crash_and_start().await;
    let mira = mira.at(server.url());
    let credits = mira.credits().await;
    // Until the new node has taken over, the song has a problem.
    eventually("the missing one to be made", || async {
        let again = mira.patch(&path, json!({"complete": true})).await.expect(200);
        if again["status"] == "making" { Ok(()) } else { Err(again.to_string()) }
    })
    .await;
    let missing = provider.order().await;
    assert_eq!((missing.key.split('.').nth(1), missing.body["style"].as_str()), (Some("2"), Some("waltz")));
    mira.patch(&path, json!({"complete": true})).await.expect(200);
    missing.call_back(&missing.complete()).await.expect(200);
    let made = until(&mira, &id(&placed), "complete").await;
    mira.patch(&path, json!({"complete": true})).await.expect(200);
    let replayed = place(&mira, "one", &order(&[song("One")])).await;
    assert_eq!(replayed.header("idempotent-replayed"), "true");
    assert_eq!(replayed.expect(200), made);
    let whole = mira.song(made["songs"][0]["song_id"].as_str().unwrap()).await;
    for (before, after) in
        partly["variants"].as_array().unwrap()[..2].iter().zip(whole["variants"].as_array().unwrap())
    {
        assert_eq!(before, after, "what was there stayed as it was");
    }
    assert_eq!(provider.more_orders(), 0);
    assert_eq!(mira.credits().await, credits, "it was paid for already");
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn what_could_not_be_paid_is_made_later_and_an_order_of_nothing_leaves_no_trace() {
    let mut provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await.set("credits.signup_grant", "3");
    let server = setup.start().await;
    let (mira, operator) = (server.person("mira"), operator(&server));
    let both = place(&mira, "both", &order(&[song("One"), song("Two")])).await.expect(202);
    let places = both["songs"].as_array().unwrap();
    let (made, refused) = match places[0]["song_id"].is_string() {
        true => (0, 1),
        false => (1, 0),
    };
    assert!(places[made]["song_id"].is_string() && places[refused]["song_id"].is_null(), "{both}");
    assert_eq!(places[refused]["problem"]["status"], 402);
    make_three(&mut provider).await;
    until(&mira, &id(&both), "incomplete").await;
    let none = place(&mira, "none", &order(&[song("Three")])).await;
    assert_eq!(none.problem(402), "insufficient-credits");
    let orders = mira.get("/v1/orders").await.expect(200);
    assert_eq!(orders["orders"].as_array().unwrap().len(), 1, "{orders}");

    grant(&operator, &mira, 5).await;
    let path = format!("/v1/orders/{}", id(&both));
    let completed = join_all((0..4).map(|_| mira.patch(&path, json!({"complete": true}))));
    let songs = order(&[song("One"), song("Two")]);
    let replayed = join_all((0..4).map(|_| place(&mira, "both", &songs)));
    let (completed, replayed) = tokio::join!(completed, replayed);
    assert!(completed.iter().chain(&replayed).all(|answer| answer.status == 200));
    make_three(&mut provider).await;
    let complete = until(&mira, &id(&both), "complete").await;
    assert_eq!(
        complete["songs"][made],
        json!({"song_id": places[made]["song_id"], "title": places[made]["title"],
        "status": "ready", "done": 3, "total": 3, "selected": null})
    );
    assert_eq!(provider.more_orders(), 0);
    assert_eq!(mira.credits().await, 4.0);
    // Refused before, it left no key.
    place(&mira, "none", &order(&[song("Three")])).await.expect(202);
    audit(server.look().await, None).await;
}

/// Ends the program after an order was taken down and before a song of it was.
async fn never_begun(server: Server, mira: &Person) -> Setup {
    let held = server.setup.hold("song_variants").await;
    let caller = Caller::ask(mira, Method::POST, "/v1/orders", "one", &order(&[song("One")])).await;
    is_taken_down(&server, 1).await;
    server.program.signal("KILL");
    drop((caller, held));
    server.setup.clone()
}

/// Songs of it may still be on their way for who placed it.
#[tokio::test]
async fn whoever_asks_again_and_is_refused_leaves_the_order_to_who_placed_it() {
    let mut provider = Provider::start().await;
    let server = Setup::new(&provider.url).await.start().await;
    let mira = server.person("mira");
    let setup = never_begun(server, &mira).await;
    let server = setup.start().await;
    let (mira, operator) = (mira.at(server.url()), operator(&server));
    grant(&operator, &mira, -10).await;
    assert_eq!(place(&mira, "one", &order(&[song("One")])).await.problem(402), "insufficient-credits");
    is_taken_down(&server, 1).await;
    grant(&operator, &mira, 5).await;
    let again = place(&mira, "one", &order(&[song("One")])).await;
    assert_eq!((again.status, &again.body["status"]), (200, &json!("making")), "{}", again.text);
    make_three(&mut provider).await;
    until(&mira, &id(&again.body), "complete").await;
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn an_order_that_was_never_begun_is_begun_once_by_whoever_asks_again() {
    let mut provider = Provider::start().await;
    let server = Setup::new(&provider.url).await.start().await;
    let mira = server.person("mira");
    let server = never_begun(server, &mira).await.start().await;
    let mira = mira.at(server.url());
    assert_eq!(mira.credits().await, 10.0);
    let wanted = order(&[song("One")]);
    let again = join_all((0..4).map(|_| place(&mira, "one", &wanted))).await;
    for again in &again {
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"), "{}", again.text);
        assert_eq!(again.body["status"], "making");
    }
    make_three(&mut provider).await;
    let made = until(&mira, &id(&again[0].body), "complete").await;
    assert_eq!(place(&mira, "one", &order(&[song("One")])).await.expect(200), made);
    assert_eq!((provider.more_orders(), mira.credits().await), (0, 8.0));
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn whoever_hangs_up_while_the_order_is_taken_down_has_ordered_all_the_same() {
    let mut provider = Provider::start().await;
    let server = Setup::new(&provider.url).await.start().await;
    let mira = server.person("mira");
    let held = server.setup.hold("song_variants").await;
    let caller = Caller::ask(&mira, Method::POST, "/v1/orders", "one", &order(&[song("One")])).await;
    is_taken_down(&server, 1).await;
    caller.hang_up(&server).await;
    drop(held);
    make_three(&mut provider).await;
    let again = place(&mira, "one", &order(&[song("One")])).await.expect(200);
    until(&mira, &id(&again), "complete").await;
    assert_eq!((provider.more_orders(), mira.credits().await), (0, 8.0));
    audit(server.look().await, None).await;
}

#[tokio::test]
async fn whoever_hangs_up_before_being_refused_leaves_no_order() {
    let provider = Provider::start().await;
    let server = Setup::new(&provider.url).await.set("credits.signup_grant", "1").start().await;
    let mira = server.person("mira");
    let held = server.setup.hold("tasks").await;
    let caller = Caller::ask(&mira, Method::POST, "/v1/orders", "one", &order(&[song("One")])).await;
    server.setup.creation_waits().await;
    caller.hang_up(&server).await;
    drop(held);
    is_taken_down(&server, 0).await;
    let again = place(&mira, "one", &order(&[song("One")])).await;
    assert_eq!(again.problem(402), "insufficient-credits");
    audit(server.look().await, None).await;
}

/// As many songs as one in three variations takes, to their end.
async fn make_three(provider: &mut Provider) {
    for call in three(provider).await {
        call.call_back(&call.complete()).await.expect(200);
    }
}

async fn grant(operator: &Person, person: &Person, amount: i64) {
    let request = operator.request(Method::POST, &format!("/admin/users/{}/credits", person.user));
    let keyed = request.header("Idempotency-Key", amount.to_string());
    answer(keyed.json(&json!({"amount": amount}))).await.expect(201);
}

async fn is_taken_down(server: &Server, orders: i64) {
    let look = server.look().await;
    eventually(&format!("{orders} orders"), || async {
        match look.query_one("select count(*) from orders", &[]).await.expect("a count").get::<_, i64>(0) {
            found if found == orders => Ok(()),
            other => Err(format!("{other} orders")),
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_is_checked_whole_before_anything_is_made() {
    let server = shared().await;
    let mira = server.person("mira");
    let wrong = [
        (order(&[]), vec!["/songs"]),
        (order(&vec![song("x"); 21]), vec!["/songs"]),
        (json!({"songs": [song("x")]}), vec!["/package"]),
        (json!({"package": "p", "occasion_date": "8.5.2027", "songs": [song("x")]}), vec!["/occasion_date"]),
        (
            json!({"package": "p", "occasion_date": "2027-02-30", "songs": [song("x")]}),
            vec!["/occasion_date"],
        ),
        (
            json!({"package": "p", "occasion_date": "0000-05-01", "songs": [song("x")]}),
            vec!["/occasion_date"],
        ),
        (
            order(&[json!({"variations": [{}]}), json!({"prompt": "p", "variations": [{"tags": []}]})]),
            vec!["/songs/0/prompt", "/songs/1/variations/0/tags"],
        ),
        (order(&[json!({"prompt": "p", "variations": [{}, {}, {}, {}]})]), vec!["/songs/0/variations"]),
    ];
    for (body, pointers) in wrong {
        assert_eq!(mira.post("/v1/orders", body).await.pointers(), pointers);
    }
    assert_eq!(mira.get("/v1/orders").await.expect(200), json!({"orders": [], "next_cursor": null}));
    assert_eq!(place(&mira, "k", &order(&[song("One")])).await.status, 202);
    assert_eq!(place(&mira, "k", &order(&[song("Two")])).await.problem(422), "idempotency-mismatch");
    assert_eq!(mira.get("/v1/orders/x").await.problem(404), "not-found");
    let place_again =
        mira.post("/v1/orders", order(&[json!({"prompt": "p", "variations": [{}]})])).await.expect(202);
    let page = mira.get("/v1/orders?limit=1").await.expect(200);
    assert_eq!(page["orders"][0]["id"], place_again["id"], "newest first");
    let rest =
        mira.get(&format!("/v1/orders?cursor={}", page["next_cursor"].as_str().unwrap())).await.expect(200);
    assert_eq!((rest["orders"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
}

#[tokio::test]
async fn all_that_is_wrong_with_any_song_of_an_order_is_told_at_once() {
    let server = shared().await;
    let mira = server.person("mira");
    // Within our own limit, and beyond the provider's.
    let long = json!({"prompt": "x".repeat(2900), "variations": [{}]});
    let styles =
        json!({"prompt": "p", "lyrics": "la", "style_tags": vec!["y".repeat(99); 20], "variations": [{}]});
    let several = order(&[song("x"), long.clone(), json!({"variations": [{}]}), styles]);
    let pointers = ["/songs/1/prompt", "/songs/2/prompt", "/songs/3/style_tags"];
    assert_eq!(mira.post("/v1/orders", several).await.pointers(), pointers);
    let whole = json!({"occasion_date": "soon", "songs": [long], "colour": "red"});
    let pointers = ["/colour", "/occasion_date", "/package", "/songs/0/prompt"];
    assert_eq!(mira.post("/v1/orders", whole).await.pointers(), pointers);
    let nobody = json!({"package": "p", "provider": "minimax", "songs": [song("x"), song("y")]});
    assert_eq!(mira.post("/v1/orders", nobody).await.pointers(), ["/provider"]);

    let placed = mira.post("/v1/orders", order(&[song("One")])).await.expect(202);
    let wrong =
        json!({"occasion_date": "soon", "selections": [{"song_id": "x", "variant_number": 1}], "all": 1});
    let wrong = mira.patch(&format!("/v1/orders/{}", id(&placed)), wrong).await;
    assert_eq!(wrong.pointers(), ["/all", "/occasion_date", "/selections/0/song_id"]);
}

#[tokio::test]
async fn what_is_kept_of_an_order_is_as_clean_as_what_is_made_of_it() {
    let server = shared().await;
    let mira = server.person("mira");
    let dirty = json!({"title": "O\u{0}ne <b>day</b>", "prompt": "a <script>wedding", "lyrics": null,
                       "style_tags": ["<i>waltz</i>", "\u{0}"],
                       "variations": [{"modifier": "with\u{0} strings<br>"}, {"style_tags": ["slow\u{7}"]}]});
    let placed = mira.post("/v1/orders", order(&[dirty])).await.expect(202);
    assert_eq!(placed["songs"][0]["title"], "One day", "{placed}");
    let row = server.look().await;
    let kept = "select s.request from orders o join order_songs s on s.order_id = o.id where o.user_id = $1";
    let kept: Value = row.query_one(kept, &[&mira.user]).await.expect("one song").get(0);
    let clean = json!({"title": "One day", "prompt": "a wedding", "style_tags": ["waltz"],
                       "variations": [{"modifier": "with strings"}, {"style_tags": ["slow"]}]});
    assert_eq!(kept, clean);
}

#[tokio::test]
async fn a_guests_order_moves_to_the_account_with_its_songs() {
    let mut provider = Provider::start().await;
    let setup = Setup::new(&provider.url).await.set("credits.guest_grant", "2");
    let server = setup.start().await;
    let (guest, mira) = (guest(&server).await, server.person("mira"));
    let placed = guest.post("/v1/orders", order(&[song("One")])).await.expect(202);
    let path = format!("/v1/orders/{}", id(&placed));
    let calls = three(&mut provider).await;
    claim(&mira, &guest).await.expect(200);
    assert_eq!(guest.get(&path).await.problem(404), "not-found");
    assert_eq!(mira.get(&path).await.expect(200)["songs"][0]["song_id"], placed["songs"][0]["song_id"]);
    for call in calls {
        call.call_back(&call.complete()).await.expect(200);
    }
    until(&mira, &id(&placed), "complete").await;
    mira.patch(&path, json!({"complete": true})).await.expect(200);
    assert_eq!(provider.more_orders(), 0);
    audit(server.look().await, None).await;
}
