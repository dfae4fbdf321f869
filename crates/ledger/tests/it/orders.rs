//! Every order in which six events can arrive ends in the same state, and no order uses an identity twice.

use std::collections::BTreeSet;

use porchlight_device::model::Ledger as Model;
use porchlight_device::{News, Status};

use crate::support::{Place, news, registration};

for_both! {
    six_events_end_the_same_in_each_of_their_720_orders,
}

fn permutations(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![vec![]];
    }
    let insert = |shorter: Vec<usize>| {
        (0..of).map(move |at| {
            let mut longer = shorter.clone();
            longer.insert(at, of - 1);
            longer
        })
    };
    permutations(of - 1).into_iter().flat_map(insert).collect()
}

async fn six_events_end_the_same_in_each_of_their_720_orders(place: Place) {
    let ledger = place.ledger();
    let mut model = Model::default();
    let orders = permutations(6);
    let device = |n: usize| format!("dev-{n}");
    let kinds = [
        ("device_offline", 10),
        ("device_online", 20),
        ("device_removed", 30),
        ("device_added", 40),
        ("device_offline", 50),
        ("device_online", 60),
    ];
    for n in 0..orders.len() {
        ledger.register(&device(n), &registration("op"), 0).await.unwrap();
        model.register(&device(n), &registration("op"), 0).unwrap();
    }
    let mut ids = BTreeSet::new();
    for step in 0..kinds.len() {
        let event = |(n, order): (usize, &Vec<usize>)| {
            let (kind, at) = kinds[order[step]];
            news(kind, &device(n), at)
        };
        let events: Vec<News> = orders.iter().enumerate().map(event).collect();
        for some in events.chunks(120) {
            for (event, result) in some.iter().zip(ledger.apply_batch(0, some, 5).await) {
                let decision = result.unwrap();
                assert_eq!(decision, model.apply(event, 5), "{event:?}");
                for command in decision.commands {
                    assert!(ids.insert(command.id()), "{command:?}");
                }
            }
        }
    }
    let mut generations = BTreeSet::new();
    for (n, order) in orders.iter().enumerate() {
        let known = ledger.device(&device(n)).await.unwrap();
        assert_eq!(known.as_ref(), model.devices.get(&device(n)), "{order:?}");
        let known = known.unwrap();
        assert_eq!(
            (known.status, known.status_since_ms.is_some()),
            (Status::Online, true)
        );
        generations.insert(known.operations["op"].generation);
    }
    assert!(generations.len() > 1, "the orders differ in how often they pause");
    assert_eq!(ledger.counts().await.unwrap()[&Status::Online], 720);
}
