-- The three steps, and the call that this is.

-- Return the first bytes of the stored block in hexadecimal digits; '' if there is none, or a value of another type,
-- which a fetch replaces.
local function stored_head(bytes)
  local head = redis.pcall('GETRANGE', KEYS[7], 0, bytes - 1)
  if type(head) ~= 'string' then return '' end
  return (string.gsub(head, '.', function(char) return string.format('%02x', string.byte(char)) end))
end

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
    return { 'paused' }
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

-- Return this replica's unused turns, and how many of the blocks that wait there are without one: all of them, and those
-- not in the background.
local function own_turns(count, urgent)
  local turns, held = {}, {}
  for _, slot in ipairs(S.slots) do
    if pending(slot) and slot[REPLICA] == replica then
      turns[#turns + 1] = { slot[TURN], slot[CALLER], math.max(0, slot[USABLE_AT] - now) }
      held[slot[CALLER]] = (held[slot[CALLER]] or 0) + 1
    end
  end
  for name, number_held in pairs(held) do
    local share = share_on(shares_of(name), replica)
    if share then
      local used = math.min(share[S_COUNT], number_held)
      count = count - used
      if not share[S_BACKGROUND] then urgent = urgent - used end
    end
  end
  return turns, count, urgent
end

-- Return the answer to a tick: the replica's turns, and when it should tick again.
local function ticked(count, urgent, seen, begun)
  local turns, left, urgent_left = own_turns(count, urgent)
  local waits = math.max(pressing(urgent_left, left), seen and pressing(seen.urgent, seen.count) or 0)
  local due = next_at(waits, urgent_left > 0) - AHEAD - now
  local pause = math.max(0, S.pause_until - now)
  return { turns, left > 0 and math.max(0, due) or -1, rested_slots(), pause, pause > 0 and S.reason or '',
    begun or { '' }, seen and seen.board }
end

-- `wish`: the id that its turn is to get, its caller, begin's other arguments, whether it is in the background, and the
-- turns that the replica uses.
local function tick(returned, quiet, wants_board, count, urgent, whole, number, _, wish)
  for _, turn in ipairs(returned) do return_turn(turn) end
  local is_latest = take_report(count, whole, number)
  if quiet then take_all_slots() end
  if not is_latest then wish = nil end
  local seen
  local begun = wish and grant(wish)
  if wants_board or (count > 0 and S.pause_until <= now + AHEAD and free_slots() > 0) then
    seen = give_due(wants_board)
    if wish and not begun then
      begun = grant(wish)
      if begun and begun[1] ~= 'begun' then -- its turn has been passed on
        seen = give_due(wants_board)
      end
    end
  end
  if begun then
    count = count - 1
    if not wish[6] then urgent = urgent - 1 end
    if count == 0 then add_to_sum(REPORTS, -redis.call('HDEL', KEYS[3], replica)) end
  end
  return ticked(count, urgent, seen, begun)
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
