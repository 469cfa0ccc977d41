//! Decides who gets a shared resource next. Pure, without clock or tasks.
//!
//! Of the waiting tenants, the one that holds the least is served first; of equal ones, the one that was
//! served longest ago. Requests of one tenant are served in order. A tenant that holds nothing therefore
//! waits for at most one release for each other tenant that holds nothing, whatever the number of waiting
//! requests.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use super::shares::Shares;

/// The id of a waiting request.
pub(super) type RequestId = u64;

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requested {
    /// It was granted.
    Granted,
    /// It waits.
    Queued(RequestId),
    /// Too many requests of this tenant wait already.
    Refused,
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    wanted: u64,
}

/// The holdings of tenants, and the requests that wait.
#[derive(Debug)]
pub(super) struct FairQueue<K> {
    shares: Shares,
    waiting_max: usize,
    taken: u64,
    held: HashMap<K, u64>,
    waiting: HashMap<K, VecDeque<Waiting>>,
    /// When each tenant was served last, as a number of grants.
    served: HashMap<K, u64>,
    grants: u64,
    next_id: RequestId,
}

impl<K: Clone + Eq + Hash> FairQueue<K> {
    /// Creates a queue with these shares, in which up to `waiting_max` requests of each tenant
    /// wait.
    pub(super) fn new(shares: Shares, waiting_max: usize) -> Self {
        Self {
            shares,
            waiting_max,
            taken: 0,
            held: HashMap::new(),
            waiting: HashMap::new(),
            served: HashMap::new(),
            grants: 0,
            next_id: 0,
        }
    }

    /// The total that is held.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The amount that a tenant holds.
    pub(super) fn held(&self, tenant: &K) -> u64 {
        self.held.get(tenant).copied().unwrap_or_default()
    }

    /// Grants an amount if it is free and no other request waits for it.
    pub(super) fn try_request(&mut self, tenant: &K, wanted: u64) -> bool {
        let is_free = self.waiting.is_empty() && self.shares.allows(self.taken, self.held(tenant), wanted);
        if is_free {
            self.grant(tenant, wanted);
        }
        is_free
    }

    /// Requests an amount for a tenant, at most its share. After [`Requested::Queued`],
    /// [`FairQueue::next`] may have something to grant.
    pub(super) fn request(&mut self, tenant: &K, wanted: u64) -> Requested {
        let wanted = self.clamped(wanted);
        if self.try_request(tenant, wanted) {
            return Requested::Granted;
        }
        let queue = self.waiting.entry(tenant.clone()).or_default();
        if queue.len() >= self.waiting_max {
            return Requested::Refused;
        }
        let id = self.next_id;
        self.next_id += 1;
        queue.push_back(Waiting { id, wanted });
        Requested::Queued(id)
    }

    /// The amount that is granted at most for a request.
    pub(super) fn clamped(&self, wanted: u64) -> u64 {
        wanted.min(self.shares.tenant_max())
    }

    /// Takes back a request; false when it has been granted already.
    pub(super) fn cancel(&mut self, tenant: &K, id: RequestId) -> bool {
        let Some(queue) = self.waiting.get_mut(tenant) else { return false };
        let before = queue.len();
        queue.retain(|waiting| waiting.id != id);
        let is_cancelled = queue.len() < before;
        self.forget_if_idle(tenant);
        is_cancelled
    }

    /// Releases an amount of a tenant.
    pub(super) fn release(&mut self, tenant: &K, amount: u64) {
        if let Some(held) = self.held.get_mut(tenant) {
            let amount = amount.min(*held);
            *held -= amount;
            self.taken -= amount;
            if *held == 0 {
                self.held.remove(tenant);
            }
        }
        self.forget_if_idle(tenant);
    }

    /// Grants the next waiting request, if its amount is free.
    pub(super) fn next(&mut self) -> Option<RequestId> {
        let heads = self.waiting.iter().filter_map(|(tenant, queue)| Some((tenant, queue.front()?)));
        let within_share = heads.filter(|(tenant, head)| self.shares.is_within_share(self.held(tenant), head.wanted));
        let first = within_share.min_by_key(|(tenant, head)| {
            (self.held(tenant), self.served.get(*tenant).copied().unwrap_or_default(), head.id)
        });
        let (tenant, wanted) = first.map(|(tenant, head)| (tenant.clone(), head.wanted))?;
        // Nobody overtakes it: else whoever wants much would wait for ever.
        if !self.shares.allows(self.taken, self.held(&tenant), wanted) {
            return None;
        }
        let head = self.waiting.get_mut(&tenant)?.pop_front()?;
        if self.waiting.get(&tenant).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(&tenant);
        }
        self.grant(&tenant, wanted);
        Some(head.id)
    }

    fn grant(&mut self, tenant: &K, amount: u64) {
        *self.held.entry(tenant.clone()).or_default() += amount;
        self.taken += amount;
        self.grants += 1;
        self.served.insert(tenant.clone(), self.grants);
    }

    /// Removes a tenant that neither holds nor waits.
    fn forget_if_idle(&mut self, tenant: &K) {
        if self.waiting.get(tenant).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(tenant);
        }
        if !self.held.contains_key(tenant) && !self.waiting.contains_key(tenant) {
            self.served.remove(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLOODER: u8 = 0;
    const OTHER: u8 = 1;

    #[test]
    fn a_flood_of_requests_is_overtaken_by_who_holds_nothing() {
        let mut queue = FairQueue::new(Shares::new(4, 50), 1_000);
        for _ in 0..100 {
            queue.request(&FLOODER, 1);
        }
        assert_eq!((queue.held(&FLOODER), queue.taken()), (2, 2));
        assert_eq!(queue.next(), None);
        let Requested::Queued(id) = queue.request(&OTHER, 1) else { panic!("others wait") };
        assert_eq!(queue.next(), Some(id));
    }

    #[test]
    fn a_tenant_may_have_so_many_waiting() {
        let mut queue = FairQueue::new(Shares::new(2, 50), 3);
        let requests: Vec<Requested> = (0..5).map(|_| queue.request(&FLOODER, 1)).collect();
        assert_eq!(requests[0], Requested::Granted);
        assert_eq!(requests[4], Requested::Refused);
        assert_eq!(requests.iter().filter(|requested| matches!(requested, Requested::Queued(_))).count(), 3);
    }

    #[test]
    fn memory_is_kept_for_those_who_hold_or_wait() {
        let mut queue = FairQueue::new(Shares::new(2, 50), 3);
        for tenant in 0..50 {
            assert_eq!(queue.request(&tenant, 1), Requested::Granted);
            queue.release(&tenant, 1);
        }
        queue.request(&1, 1);
        let Requested::Queued(id) = queue.request(&1, 1) else { panic!("it has its share") };
        assert!(queue.cancel(&1, id) && !queue.cancel(&1, id));
        queue.release(&1, 1);
        assert!(queue.held.is_empty() && queue.waiting.is_empty() && queue.served.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Request(u8, u64),
        Release(usize),
        Cancel(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..6_u8, 1..5_u64).prop_map(|(tenant, wanted)| Step::Request(tenant, wanted)),
            2 => any::<usize>().prop_map(Step::Release),
            1 => any::<usize>().prop_map(Step::Cancel),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn bounds_hold_and_nobody_starves(
            total in 1..12_u64,
            percent in 1..=100_u32,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let shares = Shares::new(total, percent);
            let mut queue = FairQueue::new(shares, 1_000);
            let mut granted: Vec<(u8, u64)> = Vec::new();
            let mut waiting: Vec<(RequestId, u8, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Request(tenant, wanted) => match queue.request(&tenant, wanted) {
                        Requested::Granted => granted.push((tenant, queue.clamped(wanted))),
                        Requested::Queued(id) => waiting.push((id, tenant, queue.clamped(wanted))),
                        Requested::Refused => prop_assert!(false, "there is room"),
                    },
                    Step::Release(n) if !granted.is_empty() => {
                        let (tenant, amount) = granted.remove(n % granted.len());
                        queue.release(&tenant, amount);
                    }
                    Step::Cancel(n) if !waiting.is_empty() => {
                        let (id, tenant, _) = waiting.remove(n % waiting.len());
                        prop_assert!(queue.cancel(&tenant, id));
                    }
                    _ => {}
                }
                while let Some(id) = queue.next() {
                    let place = waiting.iter().position(|(other, _, _)| *other == id).expect("it waited");
                    let (_, tenant, wanted) = waiting.remove(place);
                    granted.push((tenant, wanted));
                }
                let taken: u64 = granted.iter().map(|(_, amount)| amount).sum();
                prop_assert_eq!(queue.taken(), taken);
                prop_assert!(taken <= total);
                for tenant in 0..6 {
                    let held: u64 = granted.iter().filter(|(other, _)| *other == tenant).map(|(_, amount)| amount).sum();
                    prop_assert_eq!(queue.held(&tenant), held);
                    prop_assert!(held <= shares.tenant_max());
                }
            }
            // Whoever waits is served, once what is held is given back.
            while !waiting.is_empty() {
                prop_assert!(!granted.is_empty(), "nothing is held, and {waiting:?} wait");
                let (tenant, amount) = granted.remove(0);
                queue.release(&tenant, amount);
                while let Some(id) = queue.next() {
                    let place = waiting.iter().position(|(other, _, _)| *other == id).expect("it waited");
                    let (_, tenant, wanted) = waiting.remove(place);
                    granted.push((tenant, wanted));
                }
            }
        }

        /// A tenant that holds nothing waits for one release for each other
        /// that holds nothing, however many requests a flooder has waiting and
        /// goes on making.
        #[test]
        fn who_holds_nothing_waits_for_few_releases(total in 1..12_u64, others in 1..8_u8, flood in 1..200_usize) {
            let mut queue = FairQueue::new(Shares::new(total, 100), 10_000);
            let mut held: VecDeque<u8> = VecDeque::new();
            let mut waiting: HashMap<RequestId, u8> = HashMap::new();
            let request = |queue: &mut FairQueue<u8>, held: &mut VecDeque<u8>, waiting: &mut HashMap<_, _>, tenant| {
                match queue.request(&tenant, 1) {
                    Requested::Granted => held.push_back(tenant),
                    Requested::Queued(id) => _ = waiting.insert(id, tenant),
                    Requested::Refused => {}
                }
            };
            for _ in 0..flood {
                request(&mut queue, &mut held, &mut waiting, FLOODER);
            }
            for other in 1..=others {
                request(&mut queue, &mut held, &mut waiting, other);
            }
            let mut releases = 0;
            while waiting.values().any(|tenant| *tenant != FLOODER) {
                releases += 1;
                prop_assert!(releases <= usize::from(others), "{waiting:?}");
                let tenant = held.iter().position(|tenant| *tenant == FLOODER).unwrap_or_default();
                let tenant = held.remove(tenant).expect("something is held");
                queue.release(&tenant, 1);
                request(&mut queue, &mut held, &mut waiting, FLOODER);
                while let Some(id) = queue.next() {
                    held.push_back(waiting.remove(&id).expect("it waited"));
                }
            }
        }
    }
}
