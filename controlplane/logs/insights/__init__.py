"""Logs Insights: the query language (pure: text in, rows out), and the queries that run in the background.

parser     text -> syntax tree, or MalformedQuery with the place
plan       syntax tree -> Plan: row-wise steps and what gathers rows between them
expressions, functions, aggregates, values, rows      what a plan computes with
execution  a Plan over events, in bounded memory, or QueryFailed with the reason
queries    the queries of this control plane: started, running, ended
"""
