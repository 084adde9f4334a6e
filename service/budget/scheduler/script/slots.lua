-- Slots: the turns that hold them, the fetches that take them, and when they are free.

local HELD_SHARE = 8 -- a slot's held time is smoothed over about this many fetches

local function slot_of(turn)
  if turn == 0 then return nil end
  for _, slot in ipairs(S.slots) do
    if slot[TURN] == turn and slot[REPLICA] == replica then return slot end
  end
end

-- Refund an unused turn: restore the slot's free time and the caller's position.
local function refund(slot)
  slot[TURN] = 0
  local caller = read_caller(slot[CALLER])
  if caller and caller[STANDING] > 0 then
    caller[TAG] = caller[TAG] - slot[COST]
    write_caller(caller)
  end
end

local function flight_of(block)
  local packed = redis.call('HGET', KEYS[4], block)
  if packed then
    local turn, ends = unpack(cmsgpack.unpack(packed))
    if not is_number(ends, 0, now + 10 * FETCH_LEASE + 60000) then error('a fetch that never ends') end
    return { turn = turn, ends = ends }
  end
end

local function end_flight(block, turn)
  local flight = flight_of(block)
  if flight and flight.turn == turn then
    redis.call('HDEL', KEYS[4], block)
    redis.call('PUBLISH', CHANNEL, block)
    return true
  end
end

-- When the call of a turn that has begun is sent: a turn may begin before it is usable.
local function sent_at(slot) return math.max(slot[BEGUN_AT], slot[USABLE_AT]) end

-- `took` is the time from when the last begin was sent until the answer: so it has come by that time after the begin.
local function give_back(turn, took)
  local slot = slot_of(turn)
  if not slot then return end
  if pending(slot) then return refund(slot) end
  local sent = sent_at(slot)
  local answered = math.max(sent, math.min(now, slot[BEGUN_AT] + took))
  S.held = S.held + (math.min(answered - sent, TRANSIT) - S.held) / HELD_SHARE
  slot[FREE_AT] = math.min(slot[FREE_AT], answered + REST)
  slot[TURN] = 0
  end_flight(slot[BLOCK], turn)
end

-- Take back a turn that has led to no call: if it has begun, that is undone.
local function return_turn(turn)
  local slot = slot_of(turn)
  if slot and not pending(slot) and slot[FREE_AT] == sent_at(slot) + TAKEN then
    slot[FREE_AT], slot[BEGUN_AT] = slot[USABLE_AT], -1
    end_flight(slot[BLOCK], turn)
  end
  give_back(turn, LARGEST)
end

local function is_paused(slot) return S.pause_until > math.max(now, slot[USABLE_AT]) end

-- Remove the fetches whose leases have ended, once in a lease.
local function purge_flights()
  if now < S.purge_at then return end
  local packed = redis.call('HGETALL', KEYS[4])
  for at = 1, #packed, 2 do
    if cmsgpack.unpack(packed[at + 1])[2] <= now then redis.call('HDEL', KEYS[4], packed[at]) end
  end
  S.purge_at = now + FETCH_LEASE
end

local function free_slots()
  local free = 0
  for _, slot in ipairs(S.slots) do
    if not pending(slot) and slot[FREE_AT] <= now + AHEAD then free = free + 1 end
  end
  return free
end

local function last_start()
  local last
  for _, slot in ipairs(S.slots) do
    local start = pending(slot) and slot[USABLE_AT] or slot[STARTED]
    if not last or start > last then last = start end
  end
  return last
end

-- Return how many slots must be free for a background turn: one is kept for new requests.
local SPARE = math.min(2, N)

-- Return when the next turn is usable if `count` wait for one; `urgent` if not all of them are in the background.
local function next_at(count, urgent)
  local frees = {}
  for at, slot in ipairs(S.slots) do
    frees[at] = pending(slot) and slot[USABLE_AT] + TURN_LEASE + AHEAD or slot[FREE_AT]
  end
  table.sort(frees)
  local at = math.max(now, S.pause_until, frees[urgent and 1 or SPARE])
  if count > math.max(1, free_slots()) then at = math.max(at, last_start() + GAP) end
  return at
end

-- Take all slots from now: calls may have been made outside of this budget.
local function take_all_slots()
  for _, slot in ipairs(S.slots) do
    if pending(slot) then refund(slot) end
    slot[TURN] = 0 -- no `done` may free it sooner
    slot[FREE_AT] = math.max(slot[FREE_AT], now + TAKEN)
  end
end

-- Return how many slots have rested, without the time that turns are given ahead.
local function rested_slots()
  local rested = 0
  for _, slot in ipairs(S.slots) do
    if not pending(slot) and slot[FREE_AT] <= now then rested = rested + 1 end
  end
  return rested
end

-- Remove those that are free latest: the others continue if replicas with different numbers of slots take turns.
local function spare_slot()
  local best
  for at, slot in ipairs(S.slots) do
    local other = best and S.slots[best]
    if not best or (pending(other) and not pending(slot))
      or (pending(other) == pending(slot) and slot[FREE_AT] > other[FREE_AT]) then
      best = at
    end
  end
  return best
end
