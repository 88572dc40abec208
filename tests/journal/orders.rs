//! Who takes an order back, where several ask for its songs at once (CRED-8).

use serde_json::json;
use songflight::credit::Credits;
use songflight::id::{UserId, fresh};
use songflight::store::orders::{NewOrder, Placed, place, take_turn, withdraw};
use songflight::time::Clock;

use super::world::World;

#[actix_web::test]
async fn an_order_is_taken_back_by_the_last_who_came_for_it_and_then_placed_anew() {
    let world = World::new("orders").await;
    let client = world.pool.get().await.expect("connected");
    let new = NewOrder {
        user: UserId::trusted("mira"),
        start: Credits::ZERO,
        key: Some("one".to_owned()),
        content_hash: [1; 32],
        package: "wedding".to_owned(),
        occasion_date: None,
        provider: "auto".to_owned(),
        songs: json!([{"prompt": "a waltz", "variations": [{}]}]),
        now: Clock.now(),
    };
    let id = fresh();
    let Ok(Placed::Placed(first)) = place(&client, id, &new).await else { panic!("nobody was before") };
    assert_eq!(place(&client, fresh(), &new).await.expect("an answer"), Placed::Replay(id));
    let second = take_turn(&client, id).await.expect("an answer").expect("it is there");
    let third = take_turn(&client, id).await.expect("an answer").expect("it is there");
    for turn in [first, second] {
        withdraw(&client, id, turn).await.expect("an answer");
        assert_eq!(world.count("orders").await, 1, "another one came later");
    }
    withdraw(&client, id, third).await.expect("an answer");
    assert_eq!(world.count("orders").await, 0);
    assert_eq!(take_turn(&client, id).await.expect("an answer"), None);
    let anew = fresh();
    assert!(matches!(place(&client, anew, &new).await, Ok(Placed::Placed(_))));
}
