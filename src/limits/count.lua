-- Counts a request in several limits: in all that are enforced, or in none; and in the dry ones if all
-- limits admit it.
--
-- KEYS: the state of each limit. ARGV: a letter for each limit, 1 for an enforced one, d for a dry one,
-- 0 for one that is only looked at; then, for each limit, its kind, the units that a request takes of
-- it, and three numbers. Answers four numbers for each limit: 1 if it
-- admits the request, the requests that remain after it, the microseconds until the limit is whole, and
-- those until a request is admitted.
--
-- Time is the server's, in microseconds. All numbers are whole and below 2^53, where a double is
-- exact. A state from the future means that the clock was set back: no time has passed since then,
-- and the state is moved to now, or it would lock a client out until the clock is there again.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- The two or three numbers of a state; nothing for a key that has none.
local function read(key)
  local state = redis.pcall('GET', key)
  if type(state) ~= 'string' then return nil end
  local a, b, c = string.match(state, '^(%d+) (%d+) ?(%d*)$')
  return tonumber(a), tonumber(b), tonumber(c)
end

-- Time to live: until the limit is whole, and needs no state.
local function keep(key, state, whole)
  redis.call('SET', key, state, 'PX', math.ceil(whole / 1000) + 1)
end

-- From the first request of a key until the window ends.
local function fixed_window(key, cost, limit, window)
  local ends, count = read(key)
  if not ends or now >= ends then ends, count = now + window, 0 end
  if ends > now + window then
    ends = now + window
    keep(key, string.format('%.0f %.0f', ends, count), window)
  end
  local left, admitted = ends - now, count + cost <= limit
  if admitted then count = count + cost end
  local state = string.format('%.0f %.0f', ends, count)
  return state, admitted, math.floor((limit - count) / cost), left, admitted and 0 or left
end

-- Windows on one grid of ticks; those of the last one count by the share of it that a window which
-- ends now would still cover.
local function sliding_window(key, cost, limit, window, tick)
  local at = math.floor(now / tick)
  local number, elapsed = math.floor(at / window), at % window
  local kept, before, count = read(key)
  if not kept or kept < number - 1 then
    before, count = 0, 0
  elseif kept == number - 1 then
    before, count = count, 0
  elseif kept > number then
    keep(key, string.format('%.0f %.0f %.0f', number, before, count), 2 * window * tick)
  end
  -- The first tick of a window at which `weight` units of the last one count for less than `below`.
  local function fades_at(weight, below)
    if weight < below then return 0 end
    return window - math.ceil(below * window / weight) + 1
  end
  local function time_until(below)
    if count < below then
      return math.max(0, fades_at(before, below - count) - elapsed) * tick
    end
    return (window - elapsed + fades_at(count, below)) * tick
  end
  local admitted = before * (window - elapsed) < (limit + 1 - count - cost) * window
  local wait = 0
  if admitted then count = count + cost else wait = time_until(limit + 1 - cost) end
  local used = count + math.floor(before * (window - elapsed) / window)
  local state = string.format('%.0f %.0f %.0f', number, before, count)
  return state, admitted, math.floor(math.max(0, limit - used) / cost), time_until(1), wait
end

-- The tokens that are missing, as the time it takes until they are back. `unit`: how many of the
-- units in which that is counted make a microsecond.
local function token_bucket(key, cost, burst, per_token, unit)
  local at, missing = read(key)
  local depth, per_request = burst * per_token, cost * per_token
  if not at then
    at, missing = now, 0
  elseif at > now then
    at = now
    keep(key, string.format('%.0f %.0f', at, missing), missing / unit)
  end
  missing = math.max(0, missing - (now - at) * unit)
  local admitted, wait = missing + per_request <= depth, 0
  if admitted then
    missing = missing + per_request
  else
    wait = math.ceil((missing + per_request - depth) / unit)
  end
  local state = string.format('%.0f %.0f', now, missing)
  local remaining = math.floor((depth - missing) / per_request)
  return state, admitted, remaining, math.ceil(missing / unit), wait
end

local kinds = {
  fixed_window = fixed_window,
  sliding_window = sliding_window,
  token_bucket = token_bucket,
}

local states, answer, enforced, all = {}, {}, true, true
for i, key in ipairs(KEYS) do
  local at = 5 * i - 3
  local cost = tonumber(ARGV[at + 1])
  local a, b, c = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local state, admitted, remaining, whole, wait = kinds[ARGV[at]](key, cost, a, b, c)
  local how = string.sub(ARGV[1], i, i)
  if how == '1' then enforced = enforced and admitted end
  if how ~= '0' then all = all and admitted end
  states[i] = state
  answer[4 * i - 3] = admitted and 1 or 0
  answer[4 * i - 2] = remaining
  answer[4 * i - 1] = whole
  answer[4 * i] = wait
end
for i, key in ipairs(KEYS) do
  local how = string.sub(ARGV[1], i, i)
  if (how == '1' and enforced) or (how == 'd' and all) then
    keep(key, states[i], answer[4 * i - 1])
  end
end
return answer
