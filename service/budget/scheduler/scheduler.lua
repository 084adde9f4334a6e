-- Gives out the turns of one app: the rules of the budget, "one clock" and "fair by weight" among them.
-- policy.py is the same policy in Python, function by function; the tests hold the two against each other.
--
-- A server forgets its scripts when it restarts, and does not pass them on to its replicas. So this text is loaded under
-- a unique name, the run, in a comment above it: a server that knows the script is the one that has begun the run, and
-- has lost nothing since. See runs.py.
--
-- KEYS: 1 state, 2 callers (caller -> sums and tag), 3 reports (replica -> until when its report holds), 4 flights
--       (block -> flight), 5 shares (caller -> its share on each replica), 6 the block of a begin or of a tick's wish
-- ARGV: 1 the call, as msgpack; 2 tick's rows that have changed, as msgpack; 3 the run of this text; 4 the run that it
--       may replace
-- Returns {msgpack of {epoch, now, answer, why all slots were taken or ''}}, or if nothing was done {'other', run},
-- {'newer'}, or {'resend', why ...} to a tick whose replica must send its whole report. Times are whole milliseconds.
--
-- A tick sends the changes of its replica's report, and the sums over all replicas change by the difference: so a turn
-- visits each caller once, not each caller on each replica, and a tick without changes visits none.

local BOARD_ROWS, HELD_SHARE = 1000, 8
local LARGEST = 86400000 -- of any time in the rules
local PAUSE_MAX = 3600000 -- the longest possible pause: anything longer is garbage
local SPANS = 1024 -- of an epoch; its number is a multiple of this, plus the span's

local op, rules, replica, epoch, seen_ms, chance, test_raw, args = unpack(cmsgpack.unpack(ARGV[1]))
local RUN, REPLACED = ARGV[3], ARGV[4]
local N, WINDOW, TRANSIT, TURN_LEASE, FETCH_LEASE, REPORT_LEASE, AHEAD, AHEAD_MAX, CLOCK_STEP, GAP, CHANNEL =
  unpack(rules)
local REST = WINDOW + 1 -- for what is lost in rounding
local TAKEN = TRANSIT + REST -- from when a call is sent, if no answer comes
local LONGEST = AHEAD_MAX + TAKEN -- from its begin: its call may be sent AHEAD_MAX later

-- Fields of a slot; pending: held for a turn that has not begun.
local FREE_AT, STARTED, TURN, REPLICA, CALLER, COST, USABLE_AT, BEGUN_AT, BLOCK = 1, 2, 3, 4, 5, 6, 7, 8, 9

local S -- the state: format, now, raw, run_id, epoch, virtual, next_id, purge_at, held, pause_until, reason, slots
local now

local function is_number(value, least, most) return type(value) == 'number' and value >= least and value <= most end

local function pending(slot) return slot[TURN] ~= 0 and slot[BEGUN_AT] < 0 end

-- Callers: their sums over all replicas, and their tags

-- Fields of a caller; STANDING: 0 without a tag, IDLE, WAITS. Fields of its share on a replica.
local WEIGHT, COUNT, SINCE, BACKGROUND, TAG, STANDING = 1, 2, 3, 4, 5, 6
local NAME, TURNS, SHARES = 7, 8, 9 -- exist within a call only: TURNS counts the turns held, absent for none
local IDLE, WAITS = 1, 2
local S_REPLICA, S_WEIGHT, S_COUNT, S_SINCE, S_BACKGROUND = 1, 2, 3, 4, 5

local function read_caller(name)
  local packed = redis.call('HGET', KEYS[2], name)
  return packed and cmsgpack.unpack(packed)
end

local function write_caller(name, caller)
  local weight, count, since, background, tag, standing = unpack(caller)
  redis.call('HSET', KEYS[2], name, cmsgpack.pack({ weight, count, since, background, tag, standing }))
end

local function shares_of(name)
  local packed = redis.call('HGET', KEYS[5], name)
  return packed and cmsgpack.unpack(packed) or {}
end

local function share_on(shares, of)
  for at, share in ipairs(shares) do
    if share[S_REPLICA] == of then return share, at end
  end
end

-- If replicas disagree about a weight, the largest counts; a caller is in the background if it is so on all replicas.
local function write_shares(name, shares)
  local caller = read_caller(name) or { 0, 0, 0, true, 0, 0 }
  local first = shares[1]
  caller[WEIGHT], caller[COUNT], caller[SINCE], caller[BACKGROUND] = 0, 0, first and first[S_SINCE] or 0, true
  for _, share in ipairs(shares) do
    caller[WEIGHT] = math.max(caller[WEIGHT], share[S_WEIGHT])
    caller[COUNT] = caller[COUNT] + share[S_COUNT]
    caller[SINCE] = math.min(caller[SINCE], share[S_SINCE])
    caller[BACKGROUND] = caller[BACKGROUND] and share[S_BACKGROUND]
  end
  if first then
    redis.call('HSET', KEYS[5], name, cmsgpack.pack(shares))
  else
    redis.call('HDEL', KEYS[5], name)
  end
  if first or caller[STANDING] > 0 then
    write_caller(name, caller)
  else
    redis.call('HDEL', KEYS[2], name)
  end
end

local function write_share(name, of, share)
  local shares = shares_of(name)
  local _, at = share_on(shares, of)
  if at then table.remove(shares, at) end
  if share then shares[#shares + 1] = share end
  if at or share then write_shares(name, shares) end
end

-- Forget the reports of these replicas.
local function drop_shares(gone)
  local packed = redis.call('HGETALL', KEYS[5])
  for at = 1, #packed, 2 do
    local left, shares = {}, cmsgpack.unpack(packed[at + 1])
    for _, share in ipairs(shares) do
      if not gone[share[S_REPLICA]] then left[#left + 1] = share end
    end
    if #left < #shares then write_shares(packed[at], left) end
  end
end

-- Slots and turns

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
    write_caller(slot[CALLER], caller)
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

-- Take one from the demand that this slot's turn was given for.
local function take_off(slot)
  local share = share_on(shares_of(slot[CALLER]), slot[REPLICA])
  if not share then return end
  share[S_COUNT] = share[S_COUNT] - 1
  write_share(slot[CALLER], slot[REPLICA], share[S_COUNT] > 0 and share or nil)
end

-- The clock and expiry

-- Later formats keep the first four fields.
local FORMAT = 3

local function is_sane_slot(slot)
  local latest = S.now + 2 * TAKEN + 1000 -- others may give turns earlier, by their own rules
  return is_number(slot[FREE_AT], 0, S.now + 2 * LARGEST) and is_number(slot[STARTED], 0, latest)
    and is_number(slot[TURN], 0, 2 ^ 53) and is_number(slot[COST], 0, 1e15)
    and is_number(slot[USABLE_AT], 0, latest) and is_number(slot[BEGUN_AT], -1, S.now)
    and type(slot[REPLICA]) == 'string' and type(slot[CALLER]) == 'string' and type(slot[BLOCK]) == 'string'
end

-- Raise an error unless the state can be one that was saved here.
local function must_be_sane()
  local sane = is_number(S.now, 0, 2 ^ 52) and is_number(S.raw, 0, 2 ^ 52) and is_number(S.epoch, 0, 2 ^ 52)
    and is_number(S.virtual, -1e15, 1e15) and is_number(S.next_id, 0, 2 ^ 53) and is_number(S.purge_at, 0, 2 ^ 52)
    and is_number(S.held, 0, math.max(TRANSIT, 60000)) and is_number(S.pause_until, 0, S.now + PAUSE_MAX)
    and type(S.reason) == 'string'
  for _, slot in ipairs(S.slots) do sane = sane and is_sane_slot(slot) end
  if not sane then error('a number that makes no sense in the state') end
end

-- Return why nothing may be done: the state belongs to another run or to a newer release.
local function load()
  local packed = redis.call('GET', KEYS[1])
  local kept = packed and cmsgpack.unpack(packed)
  S = { now = 0, pause_until = 0, reason = '' }
  if not kept then return end
  local format, run_id = kept[1], kept[4]
  if type(run_id) ~= 'string' then error('a state without a run') end
  if format > FORMAT and run_id ~= REPLACED then return { 'newer' } end
  if format ~= FORMAT then
    S.cause = 'format'
    return
  end
  if run_id ~= RUN and run_id ~= REPLACED then return { 'other', run_id } end
  local _
  _, S.now, S.raw, S.run_id, S.epoch, S.virtual, S.next_id, S.purge_at, S.held, S.pause_until, S.reason, S.slots =
    unpack(kept)
  must_be_sane()
end

local function save()
  redis.call('SET', KEYS[1], cmsgpack.pack({ FORMAT, now, S.raw, S.run_id, S.epoch, S.virtual, S.next_id, S.purge_at,
    S.held, S.pause_until, S.reason, S.slots }))
end

-- Redis has restarted, failed over or lost its data: its state is not reliable, except for a pause.
local function reset(cause)
  S.run_id, S.epoch, S.next_id, S.virtual, S.purge_at, S.held, S.slots, S.cause =
    RUN, chance * SPANS, chance * 2 ^ 20, 0, 0, 0, {}, cause
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
end

-- Read the server's clock or, if it has stepped, the latest time that is certain. That loses time, which no replica's
-- clock may bring back, because slots have been taken by the slower clock: a new epoch begins. A step back that no
-- replica's clock could have shown begins a new span of the epoch: a clock from an earlier span still shows a step, but
-- its time is not used. One of this span may be behind the others by as much as Redis took to answer it: less than
-- CLOCK_STEP.
local function advance(raw)
  local is_known = epoch - epoch % SPANS == S.epoch - S.epoch % SPANS
  local seen = is_known and math.max(S.now, seen_ms) or S.now
  local by_clock = S.now + raw - S.raw
  if seen <= by_clock and by_clock < seen + CLOCK_STEP then
    S.now = by_clock
    if not is_known then S.epoch = S.epoch - S.epoch % SPANS + (S.epoch + 1) % SPANS end
  else
    local sure = epoch == S.epoch and seen - CLOCK_STEP or S.now
    if by_clock < seen then sure = math.max(sure, by_clock) end
    S.now, S.epoch = math.max(S.now, sure), chance * SPANS
  end
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

local function settle()
  local raw = test_raw
  if raw < 0 then
    local time = redis.call('TIME')
    raw = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  if S.run_id == RUN then advance(raw) else reset(S.cause or (S.run_id and 'run' or 'new')) end
  S.raw = raw
  now = S.now
  for _, slot in ipairs(S.slots) do
    slot[FREE_AT] = math.min(slot[FREE_AT], now + LONGEST) -- taken by one with a longer window
    if pending(slot) and now >= slot[USABLE_AT] + TURN_LEASE then refund(slot) end
  end
  while #S.slots > N do
    local at = spare_slot()
    if pending(S.slots[at]) then refund(S.slots[at]) end
    table.remove(S.slots, at)
  end
  while #S.slots < N do
    S.slots[#S.slots + 1] = { now + LONGEST, now, 0, '', '', 0, 0, -1, '' }
  end
end

-- Who is next

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

-- Return how many of a caller's blocks wait without a turn.
local function lacks(caller) return caller[COUNT] - (caller[TURNS] or 0) end

-- Take one from the demand without a turn.
local function take(seen, caller, share)
  share[S_COUNT], caller[TURNS], seen.count = share[S_COUNT] - 1, (caller[TURNS] or 0) + 1, seen.count - 1
  if not caller[BACKGROUND] then seen.urgent = seen.urgent - 1 end
end

-- Return the demand to consider for pacing: background demand counts only if there is no other.
local function pressing(urgent, count) return urgent > 0 and urgent or count end

-- Forget the replicas whose reports have expired.
local function bury_dead()
  local packed, dead = redis.call('HGETALL', KEYS[3]), nil
  for at = 1, #packed, 2 do
    local expires = cmsgpack.unpack(packed[at + 1])[1]
    if not is_number(expires, 0, now + 10 * REPORT_LEASE + 60000) then error('a report that never expires') end
    if expires <= now then
      redis.call('HDEL', KEYS[3], packed[at])
      dead = dead or {}
      dead[packed[at]] = true
    end
  end
  if dead then drop_shares(dead) end
end

local function shares_in(caller)
  if not caller[SHARES] then caller[SHARES] = shares_of(caller[NAME]) end
  return caller[SHARES]
end

-- A caller that returns starts at the present virtual time; one that has left is forgotten once that has passed. If no
-- caller of the previous look still waits, virtual time starts again. `moved` are the callers to check.
local function bring_up_tags(moved, held, carried)
  if not carried then -- then all callers are among the moved
    S.virtual = 0
    for _, caller in ipairs(moved) do caller[STANDING] = 0 end
  end
  for _, caller in ipairs(moved) do
    local name = caller[NAME]
    if caller[COUNT] > 0 or held[name] then
      caller[TAG] = caller[STANDING] == IDLE and math.max(caller[TAG], S.virtual) or S.virtual
      caller[STANDING] = WAITS
      write_caller(name, caller)
    elseif caller[STANDING] == 0 or caller[TAG] <= S.virtual then
      redis.call('HDEL', KEYS[2], name)
    elseif caller[STANDING] == WAITS then
      caller[STANDING] = IDLE
      write_caller(name, caller)
    end
  end
end

-- Return the demand over all live replicas, less the turns held unused, and update the callers' tags. A caller's shares
-- are read only when needed.
local function standing()
  bury_dead()
  local held, named = {}, {}
  for _, slot in ipairs(S.slots) do
    if pending(slot) then held[slot[CALLER]] = true end
  end
  local waiting, callers, moved, carried, count, urgent = {}, 0, {}, false, 0, 0
  local packed, unpacked = redis.call('HGETALL', KEYS[2]), cmsgpack.unpack
  for at = 1, #packed, 2 do
    local name, caller = packed[at], unpacked(packed[at + 1])
    local waits = caller[COUNT]
    caller[NAME] = name
    if held[name] then named[name] = caller end
    if waits > 0 then
      callers = callers + 1
      waiting[callers] = caller
      count = count + waits
      if not caller[BACKGROUND] then urgent = urgent + waits end
    end
    if caller[STANDING] == WAITS and (waits > 0 or held[name]) then
      carried = true
    else
      moved[#moved + 1] = caller
    end
  end
  for name in pairs(held) do
    if not named[name] then
      local caller = { 0, 0, 0, true, 0, 0, name }
      named[name] = caller
      moved[#moved + 1] = caller
    end
  end
  bring_up_tags(moved, held, carried)
  local seen = { count = count, urgent = urgent, waiting = waiting }
  for _, slot in ipairs(S.slots) do
    local caller = pending(slot) and named[slot[CALLER]]
    if caller and caller[COUNT] > 0 then
      local share = share_on(shares_in(caller), slot[REPLICA])
      if share and share[S_COUNT] > 0 then take(seen, caller, share) end
    end
  end
  return seen
end

local function comes_before(a, b)
  if a[BACKGROUND] ~= b[BACKGROUND] then return b[BACKGROUND] end
  if a[TAG] ~= b[TAG] then return a[TAG] < b[TAG] end
  if a[SINCE] ~= b[SINCE] then return a[SINCE] < b[SINCE] end
  return a[NAME] < b[NAME]
end

-- Return the first `count` callers that wait without a turn. Each is compared with the last one; usually its tag suffices.
local function first_callers(waiting, count)
  local first, last, tag, background = {}, nil, math.huge, false
  for each = 1, #waiting do
    local caller = waiting[each]
    if (background or caller[TAG] <= tag) and lacks(caller) > 0 and not (last and comes_before(last, caller)) then
      local at = math.min(#first + 1, count)
      while at > 1 and comes_before(caller, first[at - 1]) do
        first[at] = first[at - 1]
        at = at - 1
      end
      first[at] = caller
      last = first[count]
      if last then tag, background = last[TAG], last[BACKGROUND] end
    end
  end
  return first
end

-- Of as many callers as there are slots, at least one has not moved back by a turn since they were found.
local function next_caller(seen)
  seen.first = seen.first or first_callers(seen.waiting, N)
  local best
  for _, caller in ipairs(seen.first) do
    if lacks(caller) > 0 and (not best or comes_before(caller, best)) then best = caller end
  end
  return best
end

local function next_share(caller)
  local best
  for _, share in ipairs(shares_in(caller)) do
    if share[S_COUNT] > 0 and (not best or share[S_SINCE] < best[S_SINCE]
      or (share[S_SINCE] == best[S_SINCE] and share[S_REPLICA] < best[S_REPLICA])) then
      best = share
    end
  end
  return best
end

-- Give all turns that are due.
local function give(seen)
  local paced = pressing(seen.urgent, seen.count) > free_slots()
  while seen.count > 0 do
    local slot
    for _, each in ipairs(S.slots) do
      if not pending(each) and (not slot or each[FREE_AT] < slot[FREE_AT]) then slot = each end
    end
    if not slot then return end
    local usable_at = math.max(now, S.pause_until, slot[FREE_AT])
    if paced then usable_at = math.max(usable_at, last_start() + GAP) end
    if usable_at > now + AHEAD then return end
    local caller = next_caller(seen)
    if caller[BACKGROUND] and free_slots() < SPARE then return end
    local share, cost = next_share(caller), 1 / caller[WEIGHT]
    if not caller[BACKGROUND] then S.virtual = math.max(S.virtual, caller[TAG]) end
    S.next_id = S.next_id + 1
    slot[TURN], slot[REPLICA], slot[CALLER], slot[COST] = S.next_id, share[S_REPLICA], caller[NAME], cost
    slot[USABLE_AT], slot[BEGUN_AT], slot[BLOCK] = usable_at, -1, ''
    caller[TAG] = caller[TAG] + cost
    write_caller(caller[NAME], caller)
    take(seen, caller, share)
  end
end

local function board(seen)
  local waiting, ranks = {}, {}
  for _, caller in ipairs(seen.waiting) do
    if lacks(caller) > 0 then waiting[#waiting + 1] = caller end
  end
  table.sort(waiting, comes_before)
  for at = 1, math.min(#waiting, BOARD_ROWS) do
    local caller = waiting[at]
    ranks[at] = { caller[NAME], lacks(caller), caller[TAG], caller[WEIGHT], now - caller[SINCE], caller[BACKGROUND] }
  end
  return { S.virtual, math.floor(S.held + 0.5), ranks }
end

-- The three steps

-- Apply a report, unless a later one of the same replica has overtaken it: return whether it was applied.
local function take_report(count, whole, number)
  local packed = redis.call('HGET', KEYS[3], replica)
  if packed and cmsgpack.unpack(packed)[2] > number then return false end
  if whole and packed then drop_shares({ [replica] = true }) end
  for _, row in ipairs(cmsgpack.unpack(ARGV[2])) do
    local name, weight, waits, waited, background = unpack(row)
    write_share(name, replica, waits > 0 and { replica, weight, waits, now - waited, background } or nil)
  end
  if count > 0 then
    redis.call('HSET', KEYS[3], replica, cmsgpack.pack({ now + REPORT_LEASE, number }))
  else
    redis.call('HDEL', KEYS[3], replica)
  end
  return true
end

-- Return the first bytes of the stored block in hexadecimal digits; '' if there is none, or a value of another type,
-- which a fetch replaces.
local function stored_head(bytes)
  local head = redis.pcall('GETRANGE', KEYS[6], 0, bytes - 1)
  if type(head) ~= 'string' then return '' end
  return (string.gsub(head, '.', function(char) return string.format('%02x', string.byte(char)) end))
end

-- Remove the fetches whose leases have ended, once in a lease.
local function purge_flights()
  if now < S.purge_at then return end
  local packed = redis.call('HGETALL', KEYS[4])
  for at = 1, #packed, 2 do
    if cmsgpack.unpack(packed[at + 1])[2] <= now then redis.call('HDEL', KEYS[4], packed[at]) end
  end
  S.purge_at = now + FETCH_LEASE
end

local function is_paused(slot) return S.pause_until > math.max(now, slot[USABLE_AT]) end

local function begin(turn, block, known, head_bytes)
  local slot, flight = slot_of(turn), flight_of(block)
  if not slot or (not pending(slot) and slot[BLOCK] ~= block) then
    end_flight(block, turn)
    return { 'lapsed' }
  end
  local other = flight and flight.turn ~= turn and flight.ends > now
  local head = pending(slot) and stored_head(head_bytes) or ''
  local stored = head ~= '' and head ~= known
  if other or stored then
    if pending(slot) then take_off(slot) end
    give_back(turn, LARGEST)
    if stored then return { 'stored', 0, head } end
    return { 'joined', flight.ends - now }
  end
  if is_paused(slot) then
    give_back(turn, LARGEST)
    return { 'paused', S.pause_until - now, S.reason }
  end
  if pending(slot) then
    take_off(slot)
    slot[STARTED], slot[BLOCK] = slot[USABLE_AT], block
  end
  slot[BEGUN_AT] = now
  local sent = sent_at(slot)
  slot[FREE_AT] = sent + TAKEN
  purge_flights()
  redis.call('HSET', KEYS[4], block, cmsgpack.pack({ turn, sent + FETCH_LEASE }))
  return { 'begun', sent - now }
end

-- Begin what the replica wishes for, if it has a turn for that caller which it does not use: which it does not know yet.
local function grant(wish)
  local used = {}
  for _, turn in ipairs(wish[7]) do used[turn] = true end
  for _, slot in ipairs(S.slots) do
    if pending(slot) and slot[REPLICA] == replica and slot[CALLER] == wish[2] and not used[slot[TURN]]
      and not is_paused(slot) then
      slot[TURN] = wish[1]
      return begin(wish[1], wish[3], wish[4], wish[5])
    end
  end
end

-- `wish`: the id that its turn is to get, its caller, begin's other arguments, whether it is in the background, and the
-- turns that the replica uses.
local function tick(returned, quiet, wants_board, count, urgent, whole, number, _, wish)
  for _, turn in ipairs(returned) do return_turn(turn) end
  local is_latest = take_report(count, whole, number)
  if quiet then
    for _, slot in ipairs(S.slots) do
      if pending(slot) then refund(slot) end
      slot[TURN] = 0 -- no `done` may free it sooner
      slot[FREE_AT] = math.max(slot[FREE_AT], now + TAKEN)
    end
  end
  if not is_latest then wish = nil end
  local seen
  local begun = wish and grant(wish)
  if wants_board or (count > 0 and S.pause_until <= now + AHEAD and free_slots() > 0) then
    seen = standing()
    give(seen)
    if wish and not begun then
      begun = grant(wish)
      if begun and begun[1] ~= 'begun' then -- its turn has been passed on
        seen = standing()
        give(seen)
      end
    end
  end
  local turns, held, free, left = {}, {}, 0, count
  if begun then
    left = left - 1
    if not wish[6] then urgent = urgent - 1 end
    if left == 0 then redis.call('HDEL', KEYS[3], replica) end
  end
  for _, slot in ipairs(S.slots) do
    if pending(slot) then
      if slot[REPLICA] == replica then
        turns[#turns + 1] = { slot[TURN], slot[CALLER], math.max(0, slot[USABLE_AT] - now) }
        held[slot[CALLER]] = (held[slot[CALLER]] or 0) + 1
      end
    elseif slot[FREE_AT] <= now then
      free = free + 1
    end
  end
  for name, number_held in pairs(held) do
    local share = share_on(shares_of(name), replica)
    if share then
      local used = math.min(share[S_COUNT], number_held)
      left = left - used
      if not share[S_BACKGROUND] then urgent = urgent - used end
    end
  end
  local waits = math.max(pressing(urgent, left), seen and pressing(seen.urgent, seen.count) or 0)
  local due = next_at(waits, urgent > 0) - AHEAD - now
  local pause = math.max(0, S.pause_until - now)
  return { turns, left > 0 and math.max(0, due) or -1, free, pause, pause > 0 and S.reason or '',
    begun or { '' }, wants_board and board(seen) or nil }
end

local function done(turn, block, pause_ms, reason, took)
  if not end_flight(block, turn) then redis.call('PUBLISH', CHANNEL, block) end
  give_back(turn, took)
  if pause_ms > 0 and now + pause_ms > S.pause_until then S.pause_until, S.reason = now + pause_ms, reason end
  return {}
end

local STEPS = { tick = tick, begin = begin, done = done }

local function run()
  settle()
  local answer = STEPS[op](unpack(args))
  save()
  return { cmsgpack.pack({ S.epoch, now, answer, S.cause or '' }) }
end

-- Unreadable or nonsensical values under a key count as lost. Refusals by Redis do not.
local function is_garbage(fault)
  return string.find(fault, '^-?WRONGTYPE') or string.find(fault, '^@?user_script')
end

local function text_of(fault) return type(fault) == 'table' and fault.err or tostring(fault) end

-- A tick sends differences to the report known here; without one, the whole report is needed.
local function lacks_report()
  if op ~= 'tick' or args[6] then return false end
  local packed = S.run_id == RUN and redis.call('HGET', KEYS[3], replica)
  return not packed or cmsgpack.unpack(packed)[2] < args[8]
end

local done_well, answer = pcall(function()
  local reason = load()
  if reason then return reason end
  return lacks_report() and { 'resend', '' } or run()
end)
if done_well then return answer end
local fault = text_of(answer)
if not is_garbage(fault) then return redis.error_reply(fault) end
redis.call('DEL', KEYS[1])
S = { now = 0, pause_until = 0, reason = '', cause = fault }
if op == 'tick' and not args[6] then
  settle()
  save()
  return { 'resend', fault }
end
return run()
