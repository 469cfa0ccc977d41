use super::*;
use crate::ingest::fingerprint::Fingerprinter;

struct IndexTest {
    index: Arc<Index>,
    fingerprinter: Fingerprinter,
    completion: Arc<BatchCompletion>,
}

impl IndexTest {
    fn new() -> Self {
        Self { index: doubles::index(1_000), fingerprinter: Fingerprinter::random(), completion: Arc::default() }
    }

    fn asked(&self, n: u32, is_wanted: bool) -> IdQuery {
        IdQuery { id: self.fingerprinter.id(&n.to_le_bytes()), time_in_id: None, is_wanted }
    }

    fn claim(&self, n: u32) -> Claim {
        self.index.claim(&[self.asked(n, true)], &self.completion).remove(0)
    }
}

#[test]
fn an_id_is_unseen_once_then_pending_then_known() {
    let bench = IndexTest::new();
    assert!(matches!(bench.claim(1), Claim::Unseen));
    assert!(matches!(bench.claim(1), Claim::Pending(_)));
    let IdQuery { id, time_in_id, .. } = bench.asked(1, true);
    bench.index.settle(&[TakenId { id, time_in_id, payload: 7, minute: Minute::of_bits(5) }], 0);
    assert!(matches!(bench.claim(1), Claim::Known(FirstEvent { payload: 7, .. })));
}

#[tokio::test]
async fn an_id_in_memory_that_may_be_lost_is_in_doubt() {
    let bench = IndexTest::new();
    let asked = bench.asked(1, true);
    assert!(matches!(bench.claim(1), Claim::Unseen));
    let taken = TakenId { id: asked.id, time_in_id: asked.time_in_id, payload: 7, minute: Minute::of_bits(5) };
    bench.index.settle(&[taken], 0);
    bench.index.doubt([asked.id.in_ledger()]);
    assert!(matches!(bench.claim(1), Claim::Doubted));
    assert_eq!(bench.index.first_of(asked).await, None);
    bench.index.trust([asked.id.in_ledger()]);
    assert!(matches!(bench.claim(1), Claim::Known(_)) && bench.index.first_of(asked).await.is_some());
}

#[test]
fn a_released_id_can_be_claimed_again() {
    let bench = IndexTest::new();
    assert!(matches!(bench.claim(1), Claim::Unseen));
    bench.index.release(bench.asked(1, true).id);
    assert_eq!(bench.index.ids(), 0);
    assert!(matches!(bench.claim(1), Claim::Unseen));
}

#[test]
fn ids_asked_for_together_are_answered_as_one_by_one() {
    let [together, alone] = [IndexTest::new(), IndexTest::new()];
    // Some twice, and some not wanted, the first or the second time.
    let asked: Vec<IdQuery> = (0..1_000_u32).map(|n| together.asked(n * 7 % 600, !n.is_multiple_of(7))).collect();
    let said = together.index.claim(&asked, &together.completion);
    for (n, (asked, said)) in asked.iter().zip(said).enumerate() {
        let expected = alone.index.claim(&[*asked], &alone.completion).remove(0);
        assert_eq!(std::mem::discriminant(&said), std::mem::discriminant(&expected), "event {n}: {said:?}");
    }
    assert_eq!(together.index.ids(), alone.index.ids());
    assert!(matches!(together.index.claim(&asked, &alone.completion)[1], Claim::Pending(_)));
}

#[test]
fn a_full_memory_refuses_until_there_is_room() {
    let bench = IndexTest::new();
    for n in 0..1_000 {
        assert!(matches!(bench.claim(n), Claim::Unseen));
    }
    assert!(matches!(bench.claim(1_000), Claim::Full) && bench.index.is_full());
    assert!(matches!(bench.claim(5), Claim::Pending(_)), "what is there is answered");
    bench.index.release(bench.asked(5, true).id);
    assert!(matches!(bench.claim(5), Claim::Unseen));
}
